package cli

import (
	"os"
	"path/filepath"
)

// DefaultRuntimeDir returns the runtime directory that a broker of the current user has by
// default. For root, the directory is /run/keyhatch. For other users, the directory is
// $XDG_RUNTIME_DIR/keyhatch, or "" if XDG_RUNTIME_DIR is not set.
func DefaultRuntimeDir() string {
	if os.Geteuid() == 0 {
		return "/run/keyhatch"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "keyhatch")
	}
	return ""
}

// DefaultAdminSocket returns the path of the admin socket in DefaultRuntimeDir. If
// DefaultRuntimeDir returns "", DefaultAdminSocket also returns "".
func DefaultAdminSocket() string {
	if dir := DefaultRuntimeDir(); dir != "" {
		return filepath.Join(dir, "admin", "admin.sock")
	}
	return ""
}
