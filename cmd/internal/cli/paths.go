package cli

import (
	"os"
	"path/filepath"
)

// DefaultRuntimeDir is where the broker's sockets are when nobody says
// otherwise: /run/keyhatch for root, else keyhatch in XDG_RUNTIME_DIR. It is
// empty where that is not set.
func DefaultRuntimeDir() string {
	if os.Geteuid() == 0 {
		return "/run/keyhatch"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "keyhatch")
	}
	return ""
}

// DefaultAdminSocket is the admin socket in DefaultRuntimeDir, or empty.
func DefaultAdminSocket() string {
	if dir := DefaultRuntimeDir(); dir != "" {
		return filepath.Join(dir, "admin", "admin.sock")
	}
	return ""
}
