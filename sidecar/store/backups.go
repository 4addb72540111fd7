package store

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// editorFiles contains the patterns of the files in which editors keep a copy of the file NAME:
// backup files, swap files, undo files, and auto-save files. The sidecar ignores these files.
var editorFiles = []struct{ prefix, suffix string }{
	{"", "~"}, {"", ".~*~"}, {".", ".sw?"}, {"", ".swp"}, {".", ".un~"}, {"#", "#"},
}

// backupSuffixes contains patterns of the suffixes that other programs append to the names of backups, in
// lower case. The sidecar does not ignore a file with such a suffix, because its name can also be the
// name of a secret.
var backupSuffixes = []string{
	".bak", ".bak[0-9]*", ".bak.*", ".backup", ".old", ".orig", ".rej", ".save", ".save.[0-9]*", ".tmp", ".new", ".copy", ".prev", "-old",
	".dpkg-old", ".dpkg-dist", ".dpkg-new", ".ucf-old", ".ucf-dist", ".ucf-new", ".rpmsave", ".rpmorig", ".rpmnew", ".sync-conflict-*",
	"_backup_[0-9]*", "_base_[0-9]*", "_local_[0-9]*", "_remote_[0-9]*", // git mergetool
}

// isBackup reports whether the name of a secret, a field, or a bundle looks like the name of a backup.
func isBackup(name string) bool {
	return slices.ContainsFunc(backupSuffixes, func(suffix string) bool { return matches("?*"+suffix, name) })
}

// matches reports whether name matches a pattern of package path/filepath. It ignores the case of name.
func matches(pattern, name string) bool {
	isMatch, _ := filepath.Match(pattern, strings.ToLower(name))
	return isMatch
}

// Backups returns the paths of the files in all directories of a store that look like backups, but are secrets
// or fields. The sidecar pushes these files, so a project can get an old value of a field.
func Backups(source Store) (paths []string) {
	for _, dir := range dirsOf(source) {
		names, _ := dir.List()
		for _, name := range names {
			if slices.ContainsFunc(strings.Split(name, "/"), isBackup) {
				paths = append(paths, filepath.Join(dir.Path, name))
			}
		}
	}
	return paths
}

// EditorFiles returns the paths of the files in which editors and other programs keep a copy of a secret or
// a field.
func (d Dir) EditorFiles(name string) (paths []string) {
	dir, base := filepath.Split(filepath.Join(d.Path, name))
	patterns := editorFiles
	for _, suffix := range backupSuffixes {
		patterns = append(patterns, struct{ prefix, suffix string }{"", suffix})
	}
	entries, _ := os.ReadDir(dir) // sorted by name
	for _, entry := range entries {
		for _, pattern := range patterns {
			suffix, isCopy := strings.CutPrefix(entry.Name(), pattern.prefix+base)
			if isCopy && matches(pattern.suffix, suffix) && entry.Type().IsRegular() {
				paths = append(paths, dir+entry.Name())
				break
			}
		}
	}
	return paths
}
