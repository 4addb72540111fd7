// Package systemd tests keyhatch under a real systemd. It boots systemd in a container
// and installs keyhatch there as a package would. To run the tests, use
// `make e2e-systemd`. The tests need root or a running container engine.
package systemd

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMain runs the tests, or an e2e subcommand if the name of the binary is e2e. The
// tests copy the binary into the container under this name.
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
