package devcontainer

import (
	"os"
	"strings"
	"testing"
)

// The situations themselves are in cmd/testdata/doctor.txt; no test can bring
// another kernel about.
func TestExplain(t *testing.T) {
	for _, c := range []struct {
		where           Surroundings
		problem, become string
	}{
		{Surroundings{Kernel: "6.12.1-amd64"}, ProblemMountMissing, ProblemMountMissing},
		{Surroundings{Kernel: "6.10.14-linuxkit"}, ProblemMountMissing, ProblemDockerDesktop},
		{Surroundings{Kernel: "6.10.14-linuxkit"}, ProblemBrokerDown, ProblemDockerDesktop},
		{Surroundings{Kernel: "5.15.167.4-microsoft-standard-WSL2"}, ProblemNotRegistered, ProblemDockerDesktop},
		{Surroundings{Kernel: "6.8.0-azure", Codespaces: true}, ProblemMountMissing, ProblemCodespaces},
		// Who can talk to a broker is told what it says, wherever that is.
		{Surroundings{Kernel: "6.10.14-linuxkit"}, ProblemUIDRefused, ProblemUIDRefused},
		{Surroundings{Codespaces: true}, ProblemProtocolSkew, ProblemProtocolSkew},
		{Surroundings{Codespaces: true}, "", ""},
	} {
		got := c.where.explain(Finding{Check: "socket", Problem: c.problem, Detail: "what was seen", Fix: "the fix"})
		if got.Problem != c.become || !strings.Contains(got.Detail, "what was seen") || got.Fix == "" {
			t.Errorf("%+v: %s becomes %+v, want %s", c.where, c.problem, got, c.become)
		}
	}
	if here := Here(); here.Kernel == "" || here.Memory != "/dev/shm" {
		t.Errorf("here is %+v", here)
	}
}

// What is no tmpfs is never taken for one.
func TestExamineMemory(t *testing.T) {
	for _, dir := range []string{"/proc", t.TempDir() + "/none"} {
		if got := examineMemory(dir); got.Problem != ProblemNotTmpfs {
			t.Errorf("%s: %+v", dir, got)
		}
	}
}

// In the first user namespace a uid is what it is.
func TestBrokerUID(t *testing.T) {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil || strings.Join(strings.Fields(string(text)), " ") != "0 0 4294967295" {
		t.Skip("this process is in a user namespace of its own")
	}
	if got := BrokerUID(); got != os.Getuid() {
		t.Errorf("%d, and the uid is %d", got, os.Getuid())
	}
}
