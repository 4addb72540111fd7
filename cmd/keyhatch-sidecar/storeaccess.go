package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"golang.org/x/sys/unix"
)

// storePaths returns the paths of all dir: and file: stores.
func storePaths(stores store.Merged) (paths []string) {
	for _, s := range stores {
		switch s := s.(type) {
		case store.Dir:
			paths = append(paths, s.Path)
		case store.File:
			paths = append(paths, s.Path)
		}
	}
	return paths
}

// An otherAccess describes what users other than the owner can do with a store.
type otherAccess int

const (
	noProblem otherAccess = iota
	canRead               // users outside the store's group can read the store
	groupCanChange
	everyoneCanChange
)

// accessWarning returns a warning and a hint if users other than the owner can change the store
// at path, or if users outside the store's group can read the store. If there is no problem, or if
// the store does not exist, warning is "".
//
// accessWarning accepts a group that can read the store, because the sidecar may run as another
// user of this group. It also accepts all modes on a read-only mount, because chmod fails there. In a
// container, the volume of a Kubernetes Secret is a read-only mount.
func accessWarning(path string) (access otherAccess, warning, hint string) {
	info, err := os.Stat(path)
	if err != nil || isReadOnlyMount(path) {
		return noProblem, "", ""
	}
	mode := info.Mode().Perm()
	if info.IsDir() && mode&0o001 != 0 && containsWritable(path) {
		mode |= 0o002
	}
	switch printable := cli.Printable(path); {
	case mode&0o002 != 0:
		access, warning = everyoneCanChange, "every user can change the store "+printable
	case mode&0o020 != 0:
		access, warning = groupCanChange, "users other than the owner can change the store "+printable
	case mode&0o004 != 0 || info.IsDir() && mode&0o001 != 0:
		access, warning = canRead, "other users can read the store "+printable
	default:
		return noProblem, "", ""
	}
	return access, warning, "run " + protectCommand(path, info)
}

// writableWarning is like accessWarning, but it only reports that other users can change the
// store.
func writableWarning(dir store.Dir) (warning, hint string) {
	access, warning, hint := accessWarning(dir.Path)
	if access < groupCanChange {
		return "", ""
	}
	return warning, hint
}

// protectCommand returns the command that ends the access of other users to the store at path. If
// other users cannot enter a directory, the modes of its files have no effect.
func protectCommand(path string, info fs.FileInfo) string {
	stat := info.Sys().(*syscall.Stat_t)
	quoted, sudo, euid := cli.ShellQuote(path), cli.SudoToActAs(stat.Uid), os.Geteuid()
	groups, _ := os.Getgroups()
	command := sudo + "chmod g-w,o-rwx " + quoted
	if euid == 0 || euid == int(stat.Uid) || slices.Contains(append(groups, os.Getegid()), int(stat.Gid)) {
		return command
	}
	// This process may run as the user of the sidecar. Without chown, this user would also lose
	// the access to the store.
	return "sudo chown -R " + strconv.Itoa(euid) + " " + quoted + " && " + command
}

// containsWritable reports whether every user can change a file or directory below dir.
func containsWritable(dir string) (found bool) {
	filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type() == fs.ModeSymlink { // the mode of a link is always 0777 and has no effect
			return nil
		}
		if info, err := entry.Info(); err == nil && info.Mode().Perm()&0o002 != 0 && !isReadOnlyMount(path) {
			found = true
			return filepath.SkipAll
		}
		return nil
	})
	return found
}

func isReadOnlyMount(path string) bool {
	var fileSystem unix.Statfs_t
	return unix.Statfs(path, &fileSystem) == nil && fileSystem.Flags&unix.ST_RDONLY != 0
}
