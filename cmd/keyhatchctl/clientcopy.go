package main

import (
	"os"
	"os/exec"
	"path/filepath"

	"github.com/keyhatch/keyhatch/schema"
)

// copyClient copies the keyhatch command for one project's container and returns the
// path of the copy. Each project gets its own copy, because root in the container may
// be able to write to the mounted file.
func copyClient(name schema.ProjectName) (string, error) {
	source, err := os.Executable()
	if err != nil {
		return "", err
	}
	source = filepath.Join(filepath.Dir(source), "keyhatch")
	if _, err := os.Stat(source); err != nil {
		if source, err = exec.LookPath("keyhatch"); err != nil {
			return "", err
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	// replaceFile creates a new file, so a running container continues to use the old file.
	path := filepath.Join(cache, "keyhatch", "clients", string(name), "keyhatch")
	return path, replaceFile(path, text, 0o755)
}
