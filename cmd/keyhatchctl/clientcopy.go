package main

import (
	"os"
	"os/exec"
	"path/filepath"

	"github.com/keyhatch/keyhatch/schema"
)

// clientFor makes a copy of the keyhatch command for one project's container.
// The container's root may write to what is mounted there, and must not reach
// the command that this machine, or another project, runs.
func clientFor(name schema.ProjectName) (string, error) {
	from, err := os.Executable()
	if err != nil {
		return "", err
	}
	from = filepath.Join(filepath.Dir(from), "keyhatch")
	if _, err := os.Stat(from); err != nil {
		if from, err = exec.LookPath("keyhatch"); err != nil {
			return "", err
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return "", err
	}
	// A running container keeps the file that it has mounted.
	path := filepath.Join(cache, "keyhatch", "clients", string(name), "keyhatch")
	return path, replace(path, text, 0o755)
}
