// Package testenv contains code that the tests of several packages share. It reads the memory of
// a process, runs commands on a pseudoterminal, and makes system calls fail. It also skips a
// test, or lets the test fail, if the machine lacks something that the test needs.
package testenv

import (
	"os"
	"os/exec"
	"testing"
)

// Require skips the test if available is false, which means that the machine lacks something
// that the test needs. If KEYHATCH_TEST_ALL is set, as in CI, the test fails instead. Require
// prints the reason.
func Require(t testing.TB, available bool, reason string) {
	t.Helper()
	if available {
		return
	}
	if All() {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// RequireTool skips the test, or lets it fail, if the program is not in PATH. See Require.
func RequireTool(t testing.TB, name string) {
	t.Helper()
	_, err := exec.LookPath(name)
	Require(t, err == nil, name+" is not installed")
}

// All reports whether KEYHATCH_TEST_ALL is set. If it is set, no test may be skipped.
func All() bool {
	return os.Getenv("KEYHATCH_TEST_ALL") != ""
}
