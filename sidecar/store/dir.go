package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/schema"
)

// A Dir is a store in a directory. Each file in the directory is a secret, and the name
// of the file is the name of the secret. Each subdirectory is a bundle. The files in the
// subdirectory are the fields of the bundle. A Dir follows symbolic links, so a secret
// volume of Kubernetes or Compose can also be a Dir.
//
// A Dir ignores empty subdirectories, names that begin with a dot (for example, the link
// ..data of Kubernetes), the directory lost+found, and temporary files of editors. The names
// of these temporary files are name~, name.swp, #name#, and 4913. The editor vim creates the
// file 4913.
//
// A file that is not valid UTF-8 is a binary secret. TrimNewline defines which newline at
// the end of a file is not part of the secret.
type Dir struct {
	Path string
	// If KeepNewline is true, a newline at the end of a file is part of the secret.
	KeepNewline bool
}

// Read returns the complete set of secrets that the directory contained at one moment. If a
// file is not complete, Read uses the old value of its secret, or of its complete bundle. An
// error contains the path of the file and the rule that the file violates. The error never
// contains the content of a file. If an empty directory has replaced the directory, Read
// returns ErrReplaced.
func (d Dir) Read(ctx context.Context, previous *Reading) (*Reading, error) {
	reading, err := readStable(ctx, previous, d.listFiles, d.readFiles)
	if err == ErrUnstable { // an error that wraps ErrUnstable already contains a path
		err = fmt.Errorf("%s: %w", d.Path, err)
	}
	return reading, err
}

func (d Dir) readFiles(l listing, previous *Reading) (*Reading, error) {
	r := newReading()
	dir := dirState{l.dir, len(l.files) > 0}
	if old := previous.dirs[d.Path]; old.HasFiles && !dir.HasFiles && old.ID != dir.ID {
		return nil, fmt.Errorf("%s: %w", d.Path, ErrReplaced)
	}
	r.dirs[d.Path] = dir
	var unfinished []schema.SecretName
	for _, f := range l.files {
		content, reason, err := r.readFile(f, previous)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			name, _, _ := strings.Cut(f.name, "/")
			unfinished = append(unfinished, schema.SecretName(name))
		} else if err := d.addFile(r.Set, f, content); err != nil {
			return nil, err
		}
	}
	for _, name := range unfinished {
		r.keepOld(name, previous)
	}
	return r, nil
}

// listFiles lists the files of the store. It performs all checks that do not need the
// content of the files.
func (d Dir) listFiles() (listing, error) {
	var l listing
	info, err := os.Stat(d.Path)
	if err != nil {
		return listing{}, describePathError(err)
	}
	l.dir = l.addDir(info)
	err = d.forEachEntry("", func(name string, info fs.FileInfo) error {
		if !info.IsDir() {
			return l.add(name, filepath.Join(d.Path, name), info)
		}
		l.addDir(info)
		return d.forEachEntry(name, func(field string, info fs.FileInfo) error {
			if info.IsDir() {
				return fmt.Errorf("%s: a bundle must contain only files, but this path is a directory", filepath.Join(d.Path, name, field))
			}
			return l.add(name+"/"+field, filepath.Join(d.Path, name, field), info)
		})
	})
	if err != nil {
		return listing{}, err
	}
	slices.SortFunc(l.files, func(a, b listedFile) int { return strings.Compare(a.name, b.name) })
	total := int64(0)
	for _, f := range l.files {
		total += f.Size
	}
	if total > schema.MaxPush {
		return listing{}, fmt.Errorf("%s: the files have %d bytes in total, but the maximum size of a push is %d bytes", d.Path, total, schema.MaxPush)
	}
	return l, nil
}

// forEachEntry calls visit for each file and each directory in the subdirectory sub of
// the store. If sub is empty, forEachEntry uses the directory of the store itself. It
// skips ignored names and follows symbolic links.
func (d Dir) forEachEntry(sub string, visit func(name string, info fs.FileInfo) error) error {
	dir := filepath.Join(d.Path, sub)
	entries, err := os.ReadDir(dir)
	if err != nil {
		if err = describePathError(err); sub != "" {
			err = asUnstable(err)
		}
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if isIgnored(name) {
			continue
		}
		path := filepath.Join(dir, name)
		if !schema.ValidSecretName(name) {
			return fmt.Errorf("%s: the name does not match %s: change the name, or start the name with a dot to exclude this path from the store", path, schema.SecretNamePattern)
		}
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Lstat(path); err == nil {
				return fmt.Errorf("%s: the target of the symbolic link does not exist", path)
			}
		}
		if err != nil {
			return asUnstable(describePathError(err))
		}
		if !info.Mode().IsRegular() && !info.IsDir() {
			return fmt.Errorf("%s must be a regular file or a directory", path)
		}
		if err := visit(name, info); err != nil {
			return err
		}
	}
	return nil
}

var errBinaryField = errors.New("a field of a bundle must be valid UTF-8: store the binary value as a separate secret")

// addFile adds the content of a file to set, as a secret or as a field of a bundle.
func (d Dir) addFile(set Set, f listedFile, content []byte) error {
	if !d.KeepNewline {
		content = TrimNewline(content)
	}
	bundle, field, isField := strings.Cut(f.name, "/")
	switch isText := utf8.Valid(content); {
	case isField && !isText:
		return fmt.Errorf("%s: %w", f.path, errBinaryField)
	case isField:
		value, exists := set[schema.SecretName(bundle)]
		if !exists {
			value.Fields = map[schema.SecretName][]byte{}
			set[schema.SecretName(bundle)] = value
		}
		value.Fields[schema.SecretName(field)] = content
	default:
		set[schema.SecretName(f.name)] = Value{Bytes: content, Binary: !isText}
	}
	return nil
}

// TrimNewline returns the part of a file's content that is the secret. It removes one newline
// (\n or \r\n) at the end of a text, because editors and the echo command add this newline.
// Binary content (not valid UTF-8, or with a NUL byte) is not changed. All other bytes, such as
// a second newline, white space, and a byte order mark, are part of the secret.
func TrimNewline(content []byte) []byte {
	if !utf8.Valid(content) || bytes.IndexByte(content, 0) >= 0 {
		return content
	}
	if rest, ok := bytes.CutSuffix(content, []byte("\r\n")); ok {
		return rest
	}
	return bytes.TrimSuffix(content, []byte("\n"))
}

// WatchDirs returns the directories in which a file event can mean that the store
// changed. These are the directory of the store, its subdirectories, and its parent
// directory. The parent directory is necessary because a rename can replace the directory
// of the store. For a symbolic link in the store or in a bundle, WatchDirs returns the target
// of the link, or the directory that contains the target if the target is a file.
//
// If a directory above the parent directory is renamed, the returned directories receive
// no event. Only polling detects such a change.
func (d Dir) WatchDirs() []string {
	dirs := append(parentDirs(d.Path), d.Path)
	entries, _ := os.ReadDir(d.Path)
	for _, entry := range entries {
		if entry.Name() == lostAndFound {
			continue
		}
		dir, isBundle := watchDirOf(d.Path, entry)
		if dir == "" {
			continue
		}
		dirs = append(dirs, dir)
		if isBundle && !isIgnored(entry.Name()) {
			fields, _ := os.ReadDir(dir)
			for _, field := range fields {
				if target, _ := watchDirOf(dir, field); target != "" && !field.IsDir() {
					dirs = append(dirs, target)
				}
			}
		}
	}
	return dirs
}

// watchDirOf returns the directory that must be watched because of an entry of parent, or "".
// For a link, this is the target, or the directory that contains the target. isDir reports
// whether the entry is a directory, or a link to a directory.
func watchDirOf(parent string, entry fs.DirEntry) (dir string, isDir bool) {
	path := filepath.Join(parent, entry.Name())
	if entry.IsDir() {
		return path, true
	}
	if entry.Type() != fs.ModeSymlink {
		return "", false
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", false
	}
	if info, err := os.Stat(target); err == nil && info.IsDir() {
		return target, true
	}
	return filepath.Dir(target), false
}

// IsAffectedBy reports whether a file event at path can mean that the store changed. It
// returns false for other files in the parent directory of the store.
func (d Dir) IsAffectedBy(path string) bool {
	parent := filepath.Dir(d.Path)
	return filepath.Dir(path) != parent || filepath.Base(path) == filepath.Base(d.Path)
}

// lostAndFound is the directory of fsck(8) at the root of an ext4 file system. Only root can
// read and watch this directory.
const lostAndFound = "lost+found"

// isIgnored reports whether the sidecar ignores a file with this name, because the file
// is hidden, is a temporary file of an editor, or belongs to the file system.
func isIgnored(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".swp") ||
		(strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#")) || name == "4913" ||
		name == lostAndFound
}
