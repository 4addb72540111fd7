#!/usr/bin/env bash
# Shows keyhatch in one terminal, with real sockets: a broker, a sidecar with a real
# directory, and two projects. It does not need root, and removes all its files.
# usage: demo.sh DIRECTORY-OF-THE-COMMANDS
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
		echo "the demo failed; its logs:" >&2
		cat "$work"/*.log >&2 || true
	fi
	rm -rf "$work"
	exit "$status"
}
trap cleanup EXIT

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Shorten the paths of temporary files, to keep the output readable.
show() { printf '  $ %s\n' "$*" | sed "s|$work/||g"; "$@" 2>&1 | sed "s|$work/||g; s/^/  /"; }
# Runs and shows a command. The demo fails if the exit code or the text is wrong.
expect() { # CODE TEXT COMMAND...
	local code=$1 text=$2 got=0 out
	shift 2
	printf '  $ %s\n' "$*" | sed "s|$work/||g; s|in_project \([a-z]*\) |[\1] |"
	out=$("$@" 2>&1) || got=$?
	printf '%s\n' "$out" | sed "s|$work/||g; s/^/  /"
	[ "$got" -eq "$code" ] || { echo "exit code $got, expected $code" >&2; return 1; }
	case $out in *"$text"*) ;; *) echo "expected to see: $text" >&2; return 1 ;; esac
}
# Waits at most 10 seconds until a command succeeds.
until_ok() {
	for _ in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done
	echo "timeout waiting for: $*" >&2
	return 1
}
in_project() { local name=$1; shift; KEYHATCH_SOCKET="$run/projects/$name/broker.sock" "$@"; }

step "1. A broker: secrets in its memory, nothing on disk"
keyhatchd --runtime-dir "$run" --projects-dir= --audit "file:$work/audit.ndjson" 2>"$work/keyhatchd.log" &
pids+=($!)
until_ok keyhatchctl --socket "$admin" status
echo "  keyhatchd serves at ${admin#"$work"/}"

step "2. A sidecar: it watches a directory and pushes all secrets"
mkdir -m 700 "$store"
printf 'npm-first-token\n' | keyhatch-sidecar set NPM_TOKEN --store "dir:$store"
printf 'gh-token\n' | keyhatch-sidecar set GH_TOKEN --store "dir:$store"
keyhatch-sidecar run --store "dir:$store" --socket "$admin" 2>"$work/sidecar.log" &
pids+=($!)
has_secrets() { keyhatchctl --socket "$admin" list | grep -q NPM_TOKEN; }
until_ok has_secrets
show keyhatchctl --socket "$admin" list

step "3. Two projects: each manifest is an allowlist, each project has a socket"
for name in api web; do
	mkdir -p "$work/$name/.devcontainer"
	secret=NPM_TOKEN; [ "$name" = web ] && secret=GH_TOKEN
	printf 'schema_version: 1\nproject: %s\nsecrets:\n  %s:\n' "$name" "$secret" >"$work/$name/.devcontainer/keyhatch.yaml"
	show keyhatchctl --socket "$admin" register "$work/$name"
done

step "4. api can fetch the secret on its allowlist, and no other"
expect 0 npm-first-token in_project api keyhatch get NPM_TOKEN
expect 4 "allowlist" in_project api keyhatch get GH_TOKEN
expect 0 gh-token in_project web keyhatch run -- sh -c 'echo "a command sees $GH_TOKEN"'

step "5. A rotation: a file in the store changes, and the project gets the new value"
printf 'npm-second-token\n' >"$store/NPM_TOKEN"
rotated() { [ "$(in_project api keyhatch get NPM_TOKEN)" = npm-second-token ]; }
until_ok rotated
expect 0 npm-second-token in_project api keyhatch get NPM_TOKEN

step "6. A clear: the memory is wiped, and old values are no longer served"
show keyhatchctl --socket "$admin" clear
expect 5 "no secrets yet" in_project api keyhatch get NPM_TOKEN

step "7. The status of the broker"
show keyhatchctl --socket "$admin" status

step "8. The audit log: counts, never a name or a value"
kill "${pids[1]}"; wait "${pids[1]}" || true
kill "${pids[0]}"; wait "${pids[0]}" || true
sed 's/^/  /' "$work/audit.ndjson"
if grep -qE 'TOKEN|npm-|gh-' "$work/audit.ndjson"; then
	echo "a name or a value is in the audit log" >&2
	exit 1
fi
pids=()
step "Done. All temporary files are removed."
