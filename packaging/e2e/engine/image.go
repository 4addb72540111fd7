package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// debianRelease is the Debian release of base images.
const debianRelease = "bookworm"

// BaseImage returns the name of an image that contains a minimal Debian and these
// packages with their dependencies, but without recommended packages and package lists.
// The first call for a set of packages takes minutes. BaseImage keeps the image as an
// archive in the user's cache directory.
func (e *Engine) BaseImage(ctx context.Context, packages ...string) (string, error) {
	packages = slices.Sorted(slices.Values(packages))
	sum := sha256.Sum256([]byte(strings.Join(packages, " ")))
	tag := debianRelease + "-" + hex.EncodeToString(sum[:6])
	image := "keyhatch-e2e:" + tag
	if _, err := e.Docker(ctx, "image", "inspect", "--format", "{{.Id}}", image); err == nil {
		return image, nil
	}
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	archive := filepath.Join(dir, tag+".tar")
	if _, err := os.Stat(archive); errors.Is(err, fs.ErrNotExist) {
		if err := makeArchive(ctx, archive, packages); err != nil {
			return "", fmt.Errorf("cannot build the base image: %w", err)
		}
	} else if err != nil {
		return "", err
	}
	if _, err := e.Docker(ctx, "import", archive, image); err != nil {
		return "", err
	}
	return image, nil
}

// makeArchive builds the image's file tree in a temporary directory and packs it. A rename
// makes the archive appear complete.
func makeArchive(ctx context.Context, archive string, packages []string) error {
	if _, err := exec.LookPath("debootstrap"); err != nil {
		return fmt.Errorf("%w: debootstrap", ErrMissing)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: root, to run debootstrap", ErrMissing)
	}
	workDir, err := os.MkdirTemp(filepath.Dir(archive), "making-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(workDir)
	tree := filepath.Join(workDir, "tree")
	args := []string{"--variant=minbase"}
	if len(packages) > 0 {
		args = append(args, "--include="+strings.Join(packages, ","))
	}
	if out, err := exec.CommandContext(ctx, "debootstrap", append(args, debianRelease, tree)...).CombinedOutput(); err != nil {
		return fmt.Errorf("debootstrap failed: %w: %s", err, out[max(0, len(out)-2000):])
	}
	for _, unneeded := range []string{"var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"} {
		if err := os.RemoveAll(filepath.Join(tree, unneeded)); err != nil {
			return err
		}
	}
	// With the same machine-id, systemd and dbus would treat all containers as one machine.
	if err := os.WriteFile(filepath.Join(tree, "etc/machine-id"), nil, 0o444); err != nil {
		return err
	}
	tempArchive := filepath.Join(workDir, "tar")
	if _, err := output(exec.CommandContext(ctx, "tar", "-C", tree, "--numeric-owner", "--xattrs", "-cf", tempArchive, ".")); err != nil {
		return err
	}
	return os.Rename(tempArchive, archive)
}
