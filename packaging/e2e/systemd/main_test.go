// Package systemd tests keyhatch under a real systemd. It boots systemd in a container, and
// installs keyhatch in the container like a Debian package would. To run the tests, use
// `make e2e-systemd`. Without root, the tests need a running container engine and a base image
// that has already been built, and the test of core dumps is skipped (if KEYHATCH_TEST_ALL is
// set, this test fails).
package systemd

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMain runs the tests. But if the name of the test binary is e2e, TestMain runs a
// subcommand of e2e. The tests copy the test binary into the container as e2e.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "e2e" {
		runE2ECommand(os.Args[1], os.Args[2:])
		return
	}
	code := m.Run()
	if stopEnvironment != nil {
		stopEnvironment()
	}
	os.Exit(code)
}
