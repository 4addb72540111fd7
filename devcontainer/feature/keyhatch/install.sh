#!/bin/sh
# Installs the keyhatch command into the image of a project container. It runs
# as root, in this folder, with the options in the environment in upper case,
# and needs no network: the command is in bin/, static, one for each machine.
# It holds to what dash and busybox have in common.
set -eu

case $(uname -m) in
x86_64 | amd64) machine=amd64 ;;
aarch64 | arm64) machine=arm64 ;;
*)
	echo "keyhatch: this Feature has no command for $(uname -m), only for x86_64 and aarch64" >&2
	exit 1
	;;
esac
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ ! -f "$here/bin/keyhatch-linux-$machine" ]; then
	echo "keyhatch: $here/bin has no keyhatch-linux-$machine: make feature builds it" >&2
	exit 1
fi

mkdir -p /usr/local/bin /usr/local/share/keyhatch
# Elsewhere first: a running command cannot be written over.
cp "$here/bin/keyhatch-linux-$machine" /usr/local/bin/.keyhatch.new
chmod 0755 /usr/local/bin/.keyhatch.new
mv -f /usr/local/bin/.keyhatch.new /usr/local/bin/keyhatch
# git and docker find their helpers by these names.
ln -sf keyhatch /usr/local/bin/git-credential-keyhatch
ln -sf keyhatch /usr/local/bin/docker-credential-keyhatch

# Where each shell looks by itself, whether it is installed yet or not.
completion() { # SHELL FILE
	mkdir -p "$(dirname -- "$2")"
	/usr/local/bin/keyhatch completion "$1" >"$2"
	chmod 0644 "$2"
}
completion bash /usr/share/bash-completion/completions/keyhatch
completion zsh /usr/local/share/zsh/site-functions/_keyhatch
completion fish /usr/share/fish/vendor_completions.d/keyhatch.fish

# What runs at each start, as the container's user. A broker that is not there
# yet must not keep a container from starting: what is wrong is said instead.
{
	echo '#!/bin/sh'
	echo '# Made by the keyhatch Feature from its options.'
	if [ "${GITHELPER:-false}" = true ]; then
		echo 'keyhatch credential install || echo "keyhatch: git will not ask keyhatch; see keyhatch doctor" >&2'
	fi
	if [ "${FILES:-false}" = true ]; then
		# The editor's or the engine's exec ends; the renderer must not.
		# In its log are paths and errors.
		echo 'setsid keyhatch files --wait 5m --watch </dev/null >"$HOME/.keyhatch-files.log" 2>&1 &'
	fi
	echo 'keyhatch doctor >&2 || echo "keyhatch: secrets cannot be had here yet" >&2'
	echo 'exit 0'
} >/usr/local/share/keyhatch/post-start
chmod 0755 /usr/local/share/keyhatch/post-start

/usr/local/bin/keyhatch --version
