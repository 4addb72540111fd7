package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// TestDoctorReportsProblemAndFix tests states that a test cannot create with a real
// broker. cmd/testdata/doctor.txt tests the other problems.
func TestDoctorReportsProblemAndFix(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		finding      cli.Finding
		problem, fix string
	}{
		{checkVersion(schema.StatusResponse{BrokerVersion: cli.Version}), "", ""},
		{checkVersion(schema.StatusResponse{BrokerVersion: "0.0.9"}), "version_skew", "restart keyhatchd"},
		{checkMemory(schema.StatusResponse{Memory: schema.MemoryLocked}), "", ""},
		{checkMemory(schema.StatusResponse{Memory: schema.MemoryUnlocked}), "memory_unlocked", "RLIMIT_MEMLOCK"},
		{checkSecretsLoaded(schema.StatusResponse{SecretsLoadedAt: &now, SecretCount: 2}), "", ""},
		{checkSecretsLoaded(schema.StatusResponse{}), "nothing_loaded", "start the sidecar"},
		{connectionProblem(fmt.Errorf("%w: %w", client.ErrUnreachable, os.ErrPermission)), "no_permission", "sudo"},
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
