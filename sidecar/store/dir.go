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

// A Dir is a store that is a directory: each file in it is a secret named by
// the file, each subdirectory a bundle whose files are its fields. Links are
// followed, so a Kubernetes or Compose secret volume is such a store too.
//
// Names that begin with a dot, which hides Kubernetes' ..data too, and what
// editors leave behind (name~, name.swp, #name#, vim's 4913) are passed over, and
// so is a subdirectory that holds nothing. A file that is not UTF-8 is a binary
// secret. One newline at the end of a file is not part of the secret.
type Dir struct {
	Path string
	// KeepNewline takes files as they are, to the last byte.
	KeepNewline bool
}

// Read returns the whole set, as it was at one moment: it waits for the store
// to stand still. Errors name the file and the rule, and hold nothing of any
// file's content.
func (d Dir) Read(ctx context.Context) (Set, error) {
	set, err := readStable(ctx, d.listFiles, d.readFiles)
	if errors.Is(err, ErrUnstable) {
		err = fmt.Errorf("%s: %w", d.Path, err)
	}
	return set, err
}

func (d Dir) readFiles(l listing) (Set, error) {
	set := Set{}
	for _, f := range l.files {
		if err := d.addFile(set, f); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// listFiles lists the store's files and checks everything that can be checked
// without reading them.
func (d Dir) listFiles() (listing, error) {
	var l listing
	err := d.forEachEntry("", func(name string, info fs.FileInfo) error {
		if !info.IsDir() {
			return l.addInfo(d.Path, name, info)
		}
		return d.forEachEntry(name, func(field string, info fs.FileInfo) error {
			if info.IsDir() {
				return fmt.Errorf("%s: a bundle's directory holds files only", filepath.Join(d.Path, name, field))
			}
			return l.addInfo(d.Path, name+"/"+field, info)
		})
	})
	if err != nil {
		return listing{}, err
	}
	slices.SortFunc(l.files, func(a, b listedFile) int { return strings.Compare(a.name, b.name) })
	total := int64(0)
	for _, f := range l.files {
		total += f.size
	}
	if total > schema.MaxPush {
		return listing{}, fmt.Errorf("%s: its files have %d bytes, and a push takes %d", d.Path, total, schema.MaxPush)
	}
	return l, nil
}

// forEachEntry calls visit for each file and directory in a subdirectory of the store,
// except those with ignored names. It follows links.
func (d Dir) forEachEntry(sub string, visit func(name string, info fs.FileInfo) error) error {
	dir := filepath.Join(d.Path, sub)
	entries, err := os.ReadDir(dir)
	if err != nil {
		if sub != "" {
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
			return fmt.Errorf("%s: the name does not match %s: rename it, or begin it with a dot", path, schema.SecretNamePattern)
		}
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Lstat(path); err == nil {
				return fmt.Errorf("%s: the link leads nowhere", path)
			}
		}
		if err != nil {
			return asUnstable(err)
		}
		if !info.Mode().IsRegular() && !info.IsDir() {
			return fmt.Errorf("%s: it is neither a file nor a directory", path)
		}
		if err := visit(name, info); err != nil {
			return err
		}
	}
	return nil
}

// addFile reads one file into the set.
func (d Dir) addFile(set Set, f listedFile) error {
	path := filepath.Join(d.Path, f.name)
	content, err := readFile(path, f.size)
	if err != nil {
		return err
	}
	if !d.KeepNewline {
		content = trimNewline(content)
	}
	bundle, field, isField := strings.Cut(f.name, "/")
	switch isText := utf8.Valid(content); {
	case isField && !isText:
		return fmt.Errorf("%s: a field of a bundle must be UTF-8: make a binary a secret of its own", path)
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

// trimNewline drops the newline that editors and echo put at the end.
func trimNewline(content []byte) []byte {
	if rest, ok := bytes.CutSuffix(content, []byte("\r\n")); ok {
		return rest
	}
	return bytes.TrimSuffix(content, []byte("\n"))
}

// WatchDirs returns the directories whose events can mean a change: the store's,
// its subdirectories, those that links lead to, and the parent, where the store
// itself may be replaced. A directory further up that is renamed with all that is
// in it gives none of them an event: that is left to polling.
func (d Dir) WatchDirs() []string {
	dirs := append(parentDirs(d.Path), d.Path)
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return dirs
	}
	for _, entry := range entries {
		path := filepath.Join(d.Path, entry.Name())
		if target, err := filepath.EvalSymlinks(path); err == nil && entry.Type() == fs.ModeSymlink {
			if info, err := os.Stat(target); err == nil && !info.IsDir() {
				target = filepath.Dir(target)
			}
			dirs = append(dirs, target)
		} else if entry.IsDir() {
			dirs = append(dirs, path)
		}
	}
	return dirs
}

// IsAffectedBy leaves out what happens beside the store in its parent.
func (d Dir) IsAffectedBy(path string) bool {
	parent := filepath.Dir(d.Path)
	return filepath.Dir(path) != parent || filepath.Base(path) == filepath.Base(d.Path)
}

// isIgnored reports whether a name is no secret: a hidden file, or what editors leave
// behind while they write.
func isIgnored(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".swp") ||
		(strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#")) || name == "4913"
}
