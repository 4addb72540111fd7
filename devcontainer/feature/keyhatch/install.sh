#!/bin/sh
# Install the keyhatch command into the image of a project container.
#
# The Dev Container CLI runs this script as root in the folder of the Feature. The
# Feature's options are environment variables with upper-case names. The script needs no
# network, because the directory bin contains a static binary for each architecture. The
# script uses only shell features that dash and busybox have.
set -eu

case $(uname -m) in
x86_64 | amd64) machine=amd64 ;;
aarch64 | arm64) machine=arm64 ;;
*)
	echo "keyhatch: this Feature supports only x86_64 and aarch64, not $(uname -m)" >&2
	exit 1
	;;
esac
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ ! -f "$here/bin/keyhatch-linux-$machine" ]; then
	echo "keyhatch: $here/bin/keyhatch-linux-$machine does not exist: to build this file, run make feature" >&2
	exit 1
fi

mkdir -p /usr/local/bin /usr/local/share/keyhatch
# Copy the binary to a temporary name and rename it, because the file of a running command
# cannot be overwritten.
cp "$here/bin/keyhatch-linux-$machine" /usr/local/bin/.keyhatch.new
chmod 0755 /usr/local/bin/.keyhatch.new
mv -f /usr/local/bin/.keyhatch.new /usr/local/bin/keyhatch
# git and docker start their credential helpers by the names of these links.
ln -sf keyhatch /usr/local/bin/git-credential-keyhatch
ln -sf keyhatch /usr/local/bin/docker-credential-keyhatch

# Each shell loads completion files from its own directory. Create the completion file of
# a shell even if the shell is not installed yet.
completion() { # SHELL FILE
	mkdir -p "$(dirname -- "$2")"
	/usr/local/bin/keyhatch completion "$1" >"$2"
	chmod 0644 "$2"
}
completion bash /usr/share/bash-completion/completions/keyhatch
completion zsh /usr/local/share/zsh/site-functions/_keyhatch
completion fish /usr/share/fish/vendor_completions.d/keyhatch.fish

# Generate the script post-start. The Dev Container CLI runs this script as the container's
# user at each start of the container. An unreachable broker must not prevent the start, so
# post-start only prints problems.
{
	echo '#!/bin/sh'
	echo '# The keyhatch Feature generated this file from its options.'
	if [ "${GITHELPER:-false}" = true ]; then
		echo 'keyhatch credential install || echo "keyhatch: cannot configure git: to find the cause, run keyhatch doctor" >&2'
	fi
	if [ "${FILES:-false}" = true ]; then
		# setsid runs keyhatch files in a new session. Otherwise the command would end when
		# the editor or the container engine ends the session of post-start. The log contains
		# paths and errors, but no secrets.
		echo 'setsid keyhatch files --wait 5m --watch </dev/null >"$HOME/.keyhatch-files.log" 2>&1 &'
	fi
	echo 'keyhatch doctor >&2 || echo "keyhatch: found a problem: to check again, run keyhatch doctor" >&2'
	echo 'exit 0'
} >/usr/local/share/keyhatch/post-start
chmod 0755 /usr/local/share/keyhatch/post-start

/usr/local/bin/keyhatch --version
