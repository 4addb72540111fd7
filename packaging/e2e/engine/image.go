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

const debianRelease = "bookworm"

// BaseImage returns the name of an image that contains a minimal Debian system. The image
// also contains the given packages and their dependencies, but no recommended packages
// and no package lists. The first call for a set of packages takes minutes. BaseImage
// stores the image as an archive in the user's cache directory, so later calls are
// faster.
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

// makeArchive builds the image's directory tree in a temporary directory, and packs the tree
// into an archive. It writes the archive under a temporary name and then renames it, so that
// no process sees an incomplete archive.
func makeArchive(ctx context.Context, archive string, packages []string) error {
	if _, err := exec.LookPath("debootstrap"); err != nil {
		return fmt.Errorf("%w: the command debootstrap", ErrMissing)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: the tests must run as root to run debootstrap", ErrMissing)
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
	// Empty the file machine-id, so that each container gets its own machine ID. If all
	// containers had the same ID, systemd and dbus would treat them as one machine.
	if err := os.WriteFile(filepath.Join(tree, "etc/machine-id"), nil, 0o444); err != nil {
		return err
	}
	tempArchive := filepath.Join(workDir, "tar")
	if _, err := output(exec.CommandContext(ctx, "tar", "-C", tree, "--numeric-owner", "--xattrs", "-cf", tempArchive, ".")); err != nil {
		return err
	}
	return os.Rename(tempArchive, archive)
}
