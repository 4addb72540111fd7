package cli

import (
	"os"
	"path/filepath"
)

// DefaultRuntimeDir returns the default directory of the broker's sockets:
// /run/keyhatch for root, otherwise $XDG_RUNTIME_DIR/keyhatch. If XDG_RUNTIME_DIR
// is not set, it returns "".
func DefaultRuntimeDir() string {
	if os.Geteuid() == 0 {
		return "/run/keyhatch"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "keyhatch")
	}
	return ""
}

// DefaultAdminSocket returns the path of the admin socket in DefaultRuntimeDir, or
// "".
func DefaultAdminSocket() string {
	if dir := DefaultRuntimeDir(); dir != "" {
		return filepath.Join(dir, "admin", "admin.sock")
	}
	return ""
}
