package devcontainer

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// TestUnreachableIsExplainedByPlatform passes findings and platforms to explainUnreachable.
// explainUnreachable must replace the problem if no broker answered and the platform is
// probably the cause. The platforms are invented, because a test cannot run on another kernel.
// cmd/testdata/doctor.txt tests keyhatch doctor on the real platform.
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
		// If a broker answered, the platform is not the cause of the problem.
		{Platform{KernelRelease: "6.10.14-linuxkit"}, ProblemUIDRefused, ProblemUIDRefused},
		{Platform{InCodespace: true}, ProblemProtocolSkew, ProblemProtocolSkew},
		{Platform{InCodespace: true}, "", ""},
	} {
		got := c.platform.explainUnreachable(Finding{Check: "socket", Problem: c.problem, Detail: "the detail", Fix: "the fix"})
		if got.Problem != c.want || !strings.Contains(got.Detail, "the detail") || got.Fix == "" {
			t.Errorf("%+v: problem %q became %+v, want problem %q", c.platform, c.problem, got, c.want)
		}
	}
	if platform := DetectPlatform(); platform.KernelRelease == "" || platform.MemoryMount != "/dev/shm" {
		t.Errorf("DetectPlatform returned %+v", platform)
	}
}

func TestCheckMemoryMountAcceptsOnlyTmpfs(t *testing.T) {
	for _, dir := range []string{"/proc", t.TempDir() + "/none"} {
		if got := checkMemoryMount(dir); got.Problem != ProblemNotTmpfs {
			t.Errorf("for %s, checkMemoryMount returned %+v, want problem %s", dir, got, ProblemNotTmpfs)
		}
	}
}

// TestRefusedUIDIsFromTheBrokersMessage checks that RefusedUID reads the uid from the
// broker's message. In a rootless container, the broker sees another uid than the process
// sees. cmd/testdata/doctor.txt tests RefusedUID with the message of a real broker.
func TestRefusedUIDIsFromTheBrokersMessage(t *testing.T) {
	refusal := &client.Error{Code: schema.CodePeerUnexpected, Message: "uid 100999 is not allowed to use the socket of project api; the operator can allow this uid with keyhatchctl register --allow-uid"}
	if got := RefusedUID(fmt.Errorf("get: %w", refusal)); got != 100999 {
		t.Errorf("uid %d, want 100999", got)
	}
	if got := RefusedUIDFix(refusal); !strings.Contains(got, "--allow-uid 100999") {
		t.Error(got)
	}
	// The broker does not accept uid 65534 in --allow-uid, so the fix must not suggest this
	// flag.
	refusal.Message = "uid 65534 is not allowed to use the socket of project api"
	if got := RefusedUIDFix(refusal); strings.Contains(got, "--allow-uid") || !strings.Contains(got, "65534") {
		t.Error(got)
	}
	refusal.Message = "not you"
	if got := RefusedUID(refusal); got != os.Getuid() {
		t.Errorf("uid %d, want this process's uid %d", got, os.Getuid())
	}
}
