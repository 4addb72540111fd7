# This Makefile builds and tests keyhatch. `make help` lists the targets.

VERSION := 0.1.0
MODULE  := github.com/keyhatch/keyhatch
GO      ?= go
FLOOD   ?= 60s
SOAK    ?= 3m
BENCH   ?=
# The version of Go that builds the commands of a release.
TOOLCHAIN := $(shell sed -n 's/^toolchain //p' go.mod)
LDFLAGS := -s -w -X $(MODULE)/cmd/internal/cli.Version=$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help build install feature test race fuzz bench attack attack-vm soak supply-chain kubernetes e2e-systemd e2e-devcontainer lint generate demo clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' Makefile

build: ## build the four commands as static binaries in bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/keyhatchd ./cmd/keyhatchctl ./cmd/keyhatch-sidecar ./cmd/keyhatch

# The Feature is built with the toolchain of go.mod, even if the settings of the installed Go
# contain GOTOOLCHAIN=local. To build the Feature without a download of this toolchain, set
# GOTOOLCHAIN=local in the environment.
feature: export GOTOOLCHAIN ?= $(TOOLCHAIN)
feature: ## build the Dev Container Feature, and pack it into dist/devcontainer-feature-keyhatch.tgz
	for arch in amd64 arm64; do \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' \
			-o devcontainer/feature/keyhatch/bin/keyhatch-linux-$$arch ./cmd/keyhatch || exit 1; \
	done
	mkdir -p dist
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C devcontainer/feature/keyhatch -cf - . | \
		gzip -n >dist/devcontainer-feature-keyhatch.tgz

# Mode 711 lets users run keyhatchctl and keyhatch-sidecar, but not read these programs. Therefore
# Linux makes the processes of these programs undumpable from their first instruction (see
# SECURITY.md). keyhatch must be readable, because it is copied into containers.
install: build ## install the commands and the systemd units into DESTDIR (default: /)
	install -D -m 755 -t $(DESTDIR)/usr/bin bin/keyhatchd bin/keyhatch
	install -D -m 711 -t $(DESTDIR)/usr/bin bin/keyhatchctl bin/keyhatch-sidecar
	install -D -m 644 -t $(DESTDIR)/usr/lib/systemd/system packaging/systemd/keyhatch.socket packaging/systemd/keyhatch.service packaging/systemd/keyhatch-sidecar.service
	install -D -m 644 packaging/systemd/keyhatch.sysusers $(DESTDIR)/usr/lib/sysusers.d/keyhatch.conf
	install -D -m 644 packaging/systemd/keyhatch.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/keyhatch.conf
	install -D -m 644 -t $(DESTDIR)/etc/apparmor.d packaging/apparmor/usr.bin.keyhatchd
	test -e $(DESTDIR)/etc/keyhatch/keyhatchd.yaml || install -D -m 644 -t $(DESTDIR)/etc/keyhatch packaging/systemd/keyhatchd.yaml

test: ## run the tests; skip a test if its tool is not installed
	$(GO) test -count=1 ./...

race: ## run the tests under the race detector
	$(GO) test -count=1 -race ./...

fuzz: ## run each fuzz test for 15 seconds
	$(GO) test ./broker/keyring -run '^$$' -fuzz '^FuzzPush$$' -fuzztime 15s
	$(GO) test ./broker/wire -run '^$$' -fuzz '^FuzzDecode$$' -fuzztime 15s
	$(GO) test ./broker/wire -run '^$$' -fuzz '^FuzzParseGet$$' -fuzztime 15s
	$(GO) test ./broker/wire -run '^$$' -fuzz '^FuzzReader$$' -fuzztime 15s -fuzzminimizetime 10x
	$(GO) test ./broker/fdstore -run '^$$' -fuzz '^FuzzInherit$$' -fuzztime 15s
	$(GO) test ./sidecar/store -run '^$$' -fuzz '^FuzzFormats$$' -fuzztime 15s
	$(GO) test ./manifest -run '^$$' -fuzz '^FuzzParse$$' -fuzztime 15s
	$(GO) test ./manifest -run '^$$' -fuzz '^FuzzDeclaration$$' -fuzztime 15s
	$(GO) test ./manifest -run '^$$' -fuzz '^FuzzChanges$$' -fuzztime 15s

bench: build ## measure keyhatchd next to echo servers and redis, and the time until changed secrets are available
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/bench ./packaging/bench
	bin/bench -keyhatchd bin/keyhatchd -json bin/bench.json $(BENCH)
	$(GO) test ./sidecar -run '^$$' -bench 'StoreWriteToBroker|StoreWriteToVisible|RestartToHealed' -benchtime 100x -timeout 5m

attack: build ## attack a broker like a hostile container, and show the effects; some attacks need root
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/attack ./packaging/attack
	bin/attack -keyhatchd bin/keyhatchd -flood $(FLOOD)

attack-vm: build ## run the attacks on Linux 6.1 in a virtual machine; needs root
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/attack ./packaging/attack
	packaging/attack/vm.sh bin/keyhatchd bin/attack

soak: build ## kill and restart everything under load for SOAK (default: 3m, for example SOAK=4h), and check for errors and leaks
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/soak ./packaging/soak
	bin/soak -bin bin -duration $(SOAK)

e2e-devcontainer: build feature ## test real dev containers with a real engine and the Dev Container CLI; needs root
	KEYHATCH_E2E=1 $(GO) test -count=1 -timeout 15m -v ./packaging/e2e/devcontainer

kubernetes: ## validate packaging/kubernetes/keyhatch.yaml with the Go types of Kubernetes
	cd packaging/kubernetes/validate && $(GO) run . ../keyhatch.yaml
	cd packaging/kubernetes/validate && sed 's/readOnly: true/readonly: true/' ../keyhatch.yaml >wrong.tmp && \
		! $(GO) run . wrong.tmp; status=$$?; rm -f wrong.tmp; exit $$status

e2e-systemd: ## test the installed units with a real systemd in a container; needs root
	KEYHATCH_E2E=1 $(GO) test -count=1 -timeout 15m -v ./packaging/e2e/systemd

lint: ## check the code with gofmt, go vet, staticcheck, and go mod tidy -diff
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "gofmt would change: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	$(GO) mod tidy -diff

supply-chain: ## check vulnerabilities, module checksums, and licences of the dependencies
	packaging/supply-chain.sh

generate: ## generate the JSON Schemas from the Go types
	$(GO) generate ./schema/...

demo: build ## show a broker, a sidecar, and two projects at work
	@bash packaging/demo.sh bin

clean: ## remove the files that the other targets create
	rm -rf bin dist devcontainer/feature/keyhatch/bin
