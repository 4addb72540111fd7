#!/usr/bin/env bash
# This script searches for known vulnerabilities in keyhatch, its dependencies, and Go's standard
# library. It also checks go.mod, and the checksums and licences of all dependencies. From the
# network, it uses only the Go module proxy and the checksum database. It checks the Go toolchain
# in go.mod. To check another toolchain, set GOTOOLCHAIN, for example GOTOOLCHAIN=go1.26.8.
set -euo pipefail
cd "$(dirname "$0")/.."

# keyhatch uses system calls that only Linux has, so it is not built for other systems.
platforms="linux/amd64 linux/arm64"
licences=MIT,BSD-3-Clause,Apache-2.0
govulncheck=golang.org/x/vuln/cmd/govulncheck@v1.9.0
go_licenses=github.com/google/go-licenses@v1.6.0

pinned=$(sed -n 's/^toolchain //p' go.mod)
export GOTOOLCHAIN="${GOTOOLCHAIN:-$pinned}"
export CGO_ENABLED=0 # the released commands are built without cgo
echo "go version: $(go env GOVERSION)"
newest=go$(GOWORK=off go list -m -f '{{.Version}}' "go@${pinned:2:4}")
[ "$newest" = "$pinned" ] ||
	echo "note: there is a newer patch release of Go: go mod edit -toolchain=$newest"

go mod verify
go mod tidy -diff

# govulncheck reads its database from the network by default. The database is also a Go module.
# So download its newest version from the module proxy.
database=$(go mod download -json golang.org/x/vulndb@latest | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
echo "vulnerability database: ${database##*@}"
for platform in $platforms; do
	echo "vulnerabilities on $platform:"
	# -exec sets the platform when govulncheck runs, but not when go builds govulncheck.
	go run -exec "env GOOS=${platform%/*} GOARCH=${platform#*/}" $govulncheck -db "file://$database/data/osv" ./...
done

# go-licenses prints warnings about assembly files, even if all licences are allowed. So show
# its output only if it fails.
if ! output=$(go run $go_licenses check ./... --include_tests --allowed_licenses=$licences 2>&1); then
	printf '%s\n' "$output" >&2
	exit 1
fi
echo "the licence of each dependency is one of $licences"
