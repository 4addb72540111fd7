// Package systemd boots a real systemd in a container, installs keyhatch there
// as a package would, and sees that it keeps its promises. `make e2e-systemd`
// runs it. It needs root, or an engine that answers.
package systemd

import (
	"os"
	"path/filepath"
	"testing"
)

// The test binary also is what runs in the container, under the name e2e.
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
