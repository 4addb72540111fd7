package devcontainer

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// The situations themselves are in cmd/testdata/doctor.txt; no test can bring
// another kernel about.
func TestUnreachableIsExplainedByPlatform(t *testing.T) {
	for _, c := range []struct {
		platform      Platform
		problem, want string
	}{
		{Platform{KernelRelease: "6.12.1-amd64"}, ProblemMountMissing, ProblemMountMissing},
		{Platform{KernelRelease: "6.10.14-linuxkit"}, ProblemMountMissing, ProblemDockerDesktop},
		{Platform{KernelRelease: "6.10.14-linuxkit"}, ProblemBrokerDown, ProblemDockerDesktop},
		{Platform{KernelRelease: "5.15.167.4-microsoft-standard-WSL2"}, ProblemNotRegistered, ProblemDockerDesktop},
		{Platform{KernelRelease: "6.8.0-azure", InCodespace: true}, ProblemMountMissing, ProblemCodespaces},
		// Who can talk to a broker is told what it says, wherever that is.
		{Platform{KernelRelease: "6.10.14-linuxkit"}, ProblemUIDRefused, ProblemUIDRefused},
		{Platform{InCodespace: true}, ProblemProtocolSkew, ProblemProtocolSkew},
		{Platform{InCodespace: true}, "", ""},
	} {
		got := c.platform.explainUnreachable(Finding{Check: "socket", Problem: c.problem, Detail: "what was seen", Fix: "the fix"})
		if got.Problem != c.want || !strings.Contains(got.Detail, "what was seen") || got.Fix == "" {
			t.Errorf("%+v: %s becomes %+v, want %s", c.platform, c.problem, got, c.want)
		}
	}
	if platform := DetectPlatform(); platform.KernelRelease == "" || platform.MemoryMount != "/dev/shm" {
		t.Errorf("here is %+v", platform)
	}
}

// What is no tmpfs is never taken for one.
func TestCheckMemoryMountAcceptsOnlyTmpfs(t *testing.T) {
	for _, dir := range []string{"/proc", t.TempDir() + "/none"} {
		if got := checkMemoryMount(dir); got.Problem != ProblemNotTmpfs {
			t.Errorf("%s: %+v", dir, got)
		}
	}
}

// In a rootless container the broker knows this user by another uid.
func TestRefusedUIDIsFromTheBrokersMessage(t *testing.T) {
	refusal := &client.Error{Code: schema.CodePeerUnexpected, Message: "uid 100999 may not use the socket of project api: register it with allow_uids"}
	if got := RefusedUID(fmt.Errorf("get: %w", refusal)); got != 100999 {
		t.Errorf("%d", got)
	}
	refusal.Message = "not you"
	if got := RefusedUID(refusal); got != os.Getuid() {
		t.Errorf("%d, and the uid is %d", got, os.Getuid())
	}
}
