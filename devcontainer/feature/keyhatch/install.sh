#!/bin/sh
# Install the keyhatch command into the image of a project container.
#
# The Dev Container CLI runs this script as root in this folder. The options are
# environment variables in upper case. The script needs no network: bin/ contains a
# static binary for each architecture. It uses only shell features that both dash and
# busybox have.
set -eu

case $(uname -m) in
x86_64 | amd64) machine=amd64 ;;
aarch64 | arm64) machine=arm64 ;;
*)
	echo "keyhatch: this Feature does not support $(uname -m), only x86_64 and aarch64" >&2
	exit 1
	;;
esac
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ ! -f "$here/bin/keyhatch-linux-$machine" ]; then
	echo "keyhatch: $here/bin/keyhatch-linux-$machine does not exist: to build it, run make feature" >&2
	exit 1
fi

mkdir -p /usr/local/bin /usr/local/share/keyhatch
# Copy to a temporary name first, because the file of a running command cannot be
# overwritten.
cp "$here/bin/keyhatch-linux-$machine" /usr/local/bin/.keyhatch.new
chmod 0755 /usr/local/bin/.keyhatch.new
mv -f /usr/local/bin/.keyhatch.new /usr/local/bin/keyhatch
# git and docker start their helpers under these names.
ln -sf keyhatch /usr/local/bin/git-credential-keyhatch
ln -sf keyhatch /usr/local/bin/docker-credential-keyhatch

# Each shell loads completions from its own directory. Create the files even if the shell
# is not installed yet.
completion() { # SHELL FILE
	mkdir -p "$(dirname -- "$2")"
	/usr/local/bin/keyhatch completion "$1" >"$2"
	chmod 0644 "$2"
}
completion bash /usr/share/bash-completion/completions/keyhatch
completion zsh /usr/local/share/zsh/site-functions/_keyhatch
completion fish /usr/share/fish/vendor_completions.d/keyhatch.fish

# The container's user runs this script at each start. An unreachable broker must not
# prevent the container from starting, so the script only prints the problem.
{
	echo '#!/bin/sh'
	echo '# The keyhatch Feature generated this file from its options.'
	if [ "${GITHELPER:-false}" = true ]; then
		echo 'keyhatch credential install || echo "keyhatch: cannot configure git; find the cause with keyhatch doctor" >&2'
	fi
	if [ "${FILES:-false}" = true ]; then
		# setsid lets keyhatch files keep running when the editor or the engine ends the
		# session of this script. The log contains paths and errors, and no secrets.
		echo 'setsid keyhatch files --wait 5m --watch </dev/null >"$HOME/.keyhatch-files.log" 2>&1 &'
	fi
	echo 'keyhatch doctor >&2 || echo "keyhatch: this container has no access to secrets yet" >&2'
	echo 'exit 0'
} >/usr/local/share/keyhatch/post-start
chmod 0755 /usr/local/share/keyhatch/post-start

/usr/local/bin/keyhatch --version
