package sidecar

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// A file is one file of a Dir, as it was when it was looked at.
type file struct {
	name  string // SECRET, or BUNDLE/FIELD
	size  int64
	stamp string // differs where the file does
}

// A listing is all the files of a Dir, sorted by name.
type listing struct {
	files  []file
	newest time.Time // the latest change of any file, or of its metadata
	// emptied is the latest change of a file that is empty.
	emptied time.Time
}

// note adds a file that changed at that time.
func (l *listing) note(f file, changed time.Time) {
	l.files = append(l.files, f)
	if changed.After(l.newest) {
		l.newest = changed
	}
	if f.size == 0 && changed.After(l.emptied) {
		l.emptied = changed
	}
}

// wait is how long the files must go on standing still. A clock that is ahead of
// this machine's does not make it longer.
func (l listing) wait() time.Duration {
	return max(min(still-time.Since(l.newest), still), min(emptyStill-time.Since(l.emptied), emptyStill))
}

func (l listing) same(other listing) bool { return slices.Equal(l.files, other.files) }

// scan lists the store's files and checks everything that can be checked
// without reading them.
func (d Dir) scan() (listing, error) {
	var l listing
	err := d.scanDir("", func(name string, info fs.FileInfo) error {
		if !info.IsDir() {
			return l.add(d.Path, name, info)
		}
		return d.scanDir(name, func(field string, info fs.FileInfo) error {
			if info.IsDir() {
				return fmt.Errorf("%s: a bundle's directory holds files only", filepath.Join(d.Path, name, field))
			}
			return l.add(d.Path, name+"/"+field, info)
		})
	})
	if err != nil {
		return listing{}, err
	}
	slices.SortFunc(l.files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	total := int64(0)
	for _, f := range l.files {
		total += f.size
	}
	if total > schema.MaxPush {
		return listing{}, fmt.Errorf("%s: its files have %d bytes, and a push takes %d", d.Path, total, schema.MaxPush)
	}
	return l, nil
}

func (d Dir) scanDir(sub string, each func(name string, info fs.FileInfo) error) error {
	dir := filepath.Join(d.Path, sub)
	entries, err := os.ReadDir(dir)
	if err != nil {
		if sub != "" {
			err = moved(err)
		}
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if passedOver(name) {
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
			return moved(err)
		}
		if !info.Mode().IsRegular() && !info.IsDir() {
			return fmt.Errorf("%s: it is neither a file nor a directory", path)
		}
		if err := each(name, info); err != nil {
			return err
		}
	}
	return nil
}

func (l *listing) add(dir, name string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: the system says nothing of it", filepath.Join(dir, name))
	}
	stamp := fmt.Sprint(st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim)
	l.note(file{name, info.Size(), stamp}, time.Unix(st.Ctim.Unix()))
	return nil
}

// passedOver are names that are no secrets: hidden ones, and what editors leave
// behind while they write.
func passedOver(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".swp") ||
		(strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#")) || name == "4913"
}
