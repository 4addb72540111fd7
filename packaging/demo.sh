#!/usr/bin/env bash
# This script shows keyhatch in one terminal: a broker, a sidecar that watches a directory,
# and two projects. The script uses real sockets, does not need root, and removes all its
# files at the end.
# usage: demo.sh DIR (DIR is the directory that contains the keyhatch commands)
set -euo pipefail

PATH="$(cd "$1" && pwd):$PATH"
work=$(mktemp -d "${TMPDIR:-/tmp}/keyhatch-demo.XXXXXX")
run="$work/run" store="$work/store"
admin="$run/admin/admin.sock"
pids=()
cleanup() {
	status=$?
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
	if [ "$status" -ne 0 ]; then
		echo "the demo failed; these are the logs of the broker and the sidecar:" >&2
		cat "$work"/*.log >&2 || true
	fi
	rm -rf "$work"
	exit "$status"
}
trap cleanup EXIT

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# show prints a command, runs the command, and prints the output. In the printed text, show
# removes the path of the temporary directory, so that the lines are short.
show() { printf '  $ %s\n' "$*" | sed "s|$work/||g"; "$@" 2>&1 | sed "s|$work/||g; s/^/  /"; }
# expect prints a command, runs the command, and prints the output. The demo fails if the
# exit code is not CODE, or if the output does not contain TEXT.
expect() { # CODE TEXT COMMAND...
	local code=$1 text=$2 got=0 out
	shift 2
	printf '  $ %s\n' "$*" | sed "s|$work/||g; s|in_project \([a-z]*\) |[\1] |"
	out=$("$@" 2>&1) || got=$?
	printf '%s\n' "$out" | sed "s|$work/||g; s/^/  /"
	[ "$got" -eq "$code" ] || { echo "the exit code is $got, but the demo expects $code" >&2; return 1; }
	case $out in *"$text"*) ;; *) echo "the output does not contain: $text" >&2; return 1 ;; esac
}
# until_ok repeats a command until the command succeeds, for at most 10 seconds.
until_ok() {
	for _ in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done
	echo "this command did not succeed within 10 seconds: $*" >&2
	return 1
}
in_project() { local name=$1; shift; KEYHATCH_SOCKET="$run/projects/$name/broker.sock" "$@"; }

step "1. Start a broker, which stores secrets only in its memory"
keyhatchd --runtime-dir "$run" --projects-dir= --audit "file:$work/audit.ndjson" 2>"$work/keyhatchd.log" &
pids+=($!)
until_ok keyhatchctl --socket "$admin" status
echo "  keyhatchd serves at ${admin#"$work"/}"

step "2. Start a sidecar, which watches a directory and pushes all secrets"
mkdir -m 700 "$store"
printf 'npm-first-token\n' | keyhatch-sidecar set NPM_TOKEN --store "dir:$store"
printf 'gh-token\n' | keyhatch-sidecar set GH_TOKEN --store "dir:$store"
keyhatch-sidecar run --store "dir:$store" --socket "$admin" 2>"$work/sidecar.log" &
pids+=($!)
has_secrets() { keyhatchctl --socket "$admin" list | grep -q NPM_TOKEN; }
until_ok has_secrets
show keyhatchctl --socket "$admin" list

step "3. Register two projects, which have different allowlists and sockets"
for name in api web; do
	mkdir -p "$work/$name/.devcontainer"
	secret=NPM_TOKEN; [ "$name" = web ] && secret=GH_TOKEN
	printf 'schema_version: 1\nproject: %s\nsecrets:\n  %s:\n' "$name" "$secret" >"$work/$name/.devcontainer/keyhatch.yaml"
	show keyhatchctl --socket "$admin" register --yes "$work/$name"
done

step "4. Fetch secrets: each project can fetch only the secret on its allowlist"
expect 0 npm-first-token in_project api keyhatch get NPM_TOKEN
expect 4 "allowlist" in_project api keyhatch get GH_TOKEN
expect 0 gh-token in_project web keyhatch run -- sh -c 'echo "a command sees $GH_TOKEN"'

step "5. Rotate a secret: after its file in the store changes, the project gets the new value"
printf 'npm-second-token\n' >"$store/NPM_TOKEN"
rotated() { [ "$(in_project api keyhatch get NPM_TOKEN)" = npm-second-token ]; }
until_ok rotated
expect 0 npm-second-token in_project api keyhatch get NPM_TOKEN

step "6. Clear the secrets: the broker wipes them, and no longer serves the old values"
show keyhatchctl --socket "$admin" clear
expect 5 "broker has no secrets" in_project api keyhatch get NPM_TOKEN

step "7. Show the status of the broker"
show keyhatchctl --socket "$admin" status

step "8. Show the audit log, which contains counts, but no name and no value of a secret"
kill "${pids[1]}"; wait "${pids[1]}" || true
kill "${pids[0]}"; wait "${pids[0]}" || true
sed 's/^/  /' "$work/audit.ndjson"
if grep -qE 'TOKEN|npm-|gh-' "$work/audit.ndjson"; then
	echo "the audit log contains the name or the value of a secret" >&2
	exit 1
fi
pids=()
step "The demo is complete. It removes all its temporary files now."
