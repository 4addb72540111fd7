// Package testenv decides what a test does on a machine that lacks something it needs.
package testenv

import (
	"os"
	"os/exec"
	"testing"
)

// Require skips the test if the machine lacks something that the test needs. If
// KEYHATCH_TEST_ALL is set, as in CI, the test fails instead.
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

// RequireTool requires that a program is in PATH.
func RequireTool(t testing.TB, name string) {
	t.Helper()
	_, err := exec.LookPath(name)
	Require(t, err == nil, name+" is not installed")
}

// All reports whether no test may be skipped.
func All() bool {
	return os.Getenv("KEYHATCH_TEST_ALL") != ""
}
