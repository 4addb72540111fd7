package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
)

// copyClient copies the keyhatch command for the container of the project at projectPath and
// returns the path of the copy. Each project gets its own copy, because root in the container
// may be able to write to the mounted file. The path of the copy does not depend on the name of
// the project, because another broker can have another project with this name.
func copyClient(projectPath string) (string, error) {
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
	digest := sha256.Sum256([]byte(projectPath))
	path := filepath.Join(cache, "keyhatch", "clients", hex.EncodeToString(digest[:]), "keyhatch")
	// replaceFile creates a new file, so a running container continues to use the old file.
	return path, replaceFile(path, text, 0o755)
}
