package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// TestDoctorReportsProblemAndFix calls the checks of doctor with invented states of the broker,
// because many of these states are hard to create with a real broker. Each finding must have the
// expected problem and fix. The scripts in cmd/testdata and cmd/keyhatchctl/testdata test doctor
// with a real broker.
func TestDoctorReportsProblemAndFix(t *testing.T) {
	now := time.Now()
	private := &globalOptions{socket: "/tmp/my run/admin/admin.sock"}
	daemon, systemd := brokerProcess{4711, uint32(os.Geteuid()), "keyhatchd"}, brokerProcess{1, 0, "systemd"}
	sudo := cli.SudoToActAs(0)
	for _, c := range []struct {
		finding      cli.Finding
		problem, fix string
	}{
		{checkVersion(schema.StatusResponse{BrokerVersion: cli.Version}, daemon), "", ""},
		{checkVersion(schema.StatusResponse{BrokerVersion: "0.0.9"}, daemon), "version_skew", "start keyhatchd again after this command: kill 4711"},
		{checkVersion(schema.StatusResponse{BrokerVersion: "0.0.9"}, systemd), "version_skew", "restart the broker: " + sudo + "systemctl restart keyhatch"},
		{checkMemory(schema.StatusResponse{Memory: schema.MemoryLocked}, daemon), "", ""},
		{checkMemory(schema.StatusResponse{Memory: schema.MemoryUnlocked}, daemon), "memory_unlocked", "prlimit --memlock=67108864 --pid 4711"},
		{checkMemory(schema.StatusResponse{Memory: schema.MemoryUnlocked}, systemd), "memory_unlocked", sudo + "systemctl edit keyhatch"},
		{checkSecretsLoaded(schema.StatusResponse{SecretsLoadedAt: &now, SecretCount: 2}, private), "", ""},
		{checkSecretsLoaded(schema.StatusResponse{AdminConnections: 1}, private), "nothing_loaded", "start the sidecar: keyhatch-sidecar run --store STORE --socket '/tmp/my run/admin/admin.sock'"},
		{checkSecretsLoaded(schema.StatusResponse{AdminConnections: 2}, private), "nothing_loaded", "keyhatch-sidecar health --store STORE --socket '/tmp/my run/admin/admin.sock'"},
		{checkSecretsLoaded(schema.StatusResponse{AdminConnections: 1, SecretsClearedAt: &now}, private), "nothing_loaded", "start the sidecar: "},
		{checkSecretsLoaded(schema.StatusResponse{AdminConnections: 2, SecretsClearedAt: &now}, private), "nothing_loaded", "restart the sidecar, or send the signal SIGUSR1 to the sidecar"},
		{missingSidecar(private), "sidecar_missing", "start the sidecar: keyhatch-sidecar run --store STORE --socket "},
		{checkSidecars(schema.StatusResponse{SidecarPID: 42, RefusedSidecars: 1}), "sidecar_refused", "stop all sidecars of this broker except one"},
		{checkStores(schema.StatusResponse{StoreProblems: 2}, private), "store_problem", "keyhatch-sidecar health --store STORE --socket '/tmp/my run/admin/admin.sock'"},
		{connectionProblem(fmt.Errorf("%w: %w", client.ErrUnreachable, os.ErrPermission)), "no_permission", ""},
		{connectionProblem(&cli.Error{Err: client.ErrUnreachable, Hint: "is keyhatchd running?"}), "broker_down", "keyhatchd"},
		{connectionProblem(client.ErrProtocol), "protocol_skew", ""},
		{connectionProblem(&client.Error{Code: schema.CodeRateLimited}), "refused", ""},
	} {
		if c.finding.Problem != c.problem || !strings.Contains(c.finding.Fix, c.fix) {
			t.Errorf("%+v: want %s with %q", c.finding, c.problem, c.fix)
		}
	}
}

func TestDoctorReportsProtocolMismatch(t *testing.T) {
	socket := fakeBroker(t, func(string, string) string {
		return `{"ok":true,"broker_version":"9.1","protocol_version":3,"instance_id":"x"}`
	})
	out, err := runCommand(t, "--socket", socket, "--json", "doctor")
	if err == nil || !strings.Contains(out, `"problem": "protocol_skew"`) || !strings.Contains(out, "version 9.1") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestNotRestoredFixSuggestsOnlyCommandsThatCanSucceed computes the fix for a stored registration
// that the broker cannot serve. If the manifest in the project's directory is missing, the fix
// must not suggest a registration. If the manifest is invalid, the fix must begin with its
// correction.
func TestNotRestoredFixSuggestsOnlyCommandsThatCanSucceed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "my api")
	p := schema.ProjectProblem{Project: "api", ProjectPath: dir, Problem: schema.ProblemNotRestored}
	check := func(want ...string) {
		t.Helper()
		want = append(want, "to forget the project: keyhatchctl --socket /s unregister api")
		if got := notRestoredFix(p, &globalOptions{socket: "/s"}); got != strings.Join(want, "\n") {
			t.Errorf("the fix is\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
	}
	check()
	file := filepath.Join(dir, ".keyhatch", "manifest.yaml")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	check()
	for text, want := range map[string]string{
		"schema_version: 1\nproject: api\nsecrets: {A: {as: x}}\n": "correct " + cli.ShellQuote(file) + " (manifest line 3: A: the value of as must be env or file), and then serve the project: keyhatchctl --socket /s register " + cli.ShellQuote(dir),
		"schema_version: 1\nproject: api\nsecrets: {A: }\n":        "to serve the project with its current manifest: keyhatchctl --socket /s register " + cli.ShellQuote(dir),
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		check(want)
	}
}
