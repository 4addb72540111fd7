package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestInvalidArgumentsExitWithUsageError(t *testing.T) {
	for _, args := range [][]string{
		{"--audit", "nowhere"}, {"--audit", "file:"}, {"--request-rate", "-1"}, {"--no-such-flag"}, {"argument"},
	} {
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), "KEYHATCH_TEST_AS=keyhatchd")
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "hint: see keyhatchd --help") {
			t.Errorf("%v: exit %d: %s", args, cmd.ProcessState.ExitCode(), out)
		}
	}
}
