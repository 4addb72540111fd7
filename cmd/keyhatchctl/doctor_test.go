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

// What a real broker shows is in cmd/testdata/doctor.txt. These are the states
// that a test cannot bring a real one into.
func TestDoctorNames(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		found        cli.Finding
		problem, fix string
	}{
		{sameVersion(schema.StatusResponse{BrokerVersion: cli.Version}), "", ""},
		{sameVersion(schema.StatusResponse{BrokerVersion: "0.0.9"}), "version_skew", "restart keyhatchd"},
		{memory(schema.StatusResponse{Memory: schema.MemoryLocked}), "", ""},
		{memory(schema.StatusResponse{Memory: schema.MemoryUnlocked}), "memory_unlocked", "RLIMIT_MEMLOCK"},
		{loaded(schema.StatusResponse{SecretsLoadedAt: &now, SecretCount: 2}), "", ""},
		{loaded(schema.StatusResponse{}), "nothing_loaded", "start the sidecar"},
		{unreached(fmt.Errorf("%w: %w", client.ErrUnreachable, os.ErrPermission)), "no_permission", "sudo"},
		{unreached(&cli.Failure{Err: client.ErrUnreachable, Hint: "is keyhatchd running?"}), "broker_down", "keyhatchd"},
		{unreached(client.ErrProtocol), "protocol_skew", ""},
		{unreached(&client.Error{Code: schema.CodeRateLimited}), "refused", ""},
	} {
		if c.found.Problem != c.problem || !strings.Contains(c.found.Fix, c.fix) {
			t.Errorf("%+v: want %s with %q", c.found, c.problem, c.fix)
		}
	}
}

// A broker of another protocol is said to be that.
func TestDoctorProtocol(t *testing.T) {
	socket := fake(t, func(string, string) string {
		return `{"ok":true,"broker_version":"9.1","protocol_version":3,"instance_id":"x"}`
	})
	out, err := ctl(t, "--socket", socket, "--json", "doctor")
	if err == nil || !strings.Contains(out, `"problem": "protocol_skew"`) || !strings.Contains(out, "version 9.1") {
		t.Errorf("%v\n%s", err, out)
	}
}
