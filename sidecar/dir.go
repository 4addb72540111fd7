package sidecar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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
func (d Dir) Read(ctx context.Context) (schema.PushRequest, error) {
	set, err := steady(ctx, d.scan, d.read)
	if errors.Is(err, errMoved) {
		err = fmt.Errorf("%s: %w", d.Path, err)
	}
	return set, err
}

func (d Dir) read(l listing) (schema.PushRequest, error) {
	set := newSet()
	for _, f := range l.files {
		if err := d.add(&set, f); err != nil {
			return schema.PushRequest{}, err
		}
	}
	return set, nil
}

// add reads one file into the set.
func (d Dir) add(set *schema.PushRequest, f file) error {
	path := filepath.Join(d.Path, f.name)
	content, err := readFile(path, f.size)
	if err != nil {
		return err
	}
	if !d.KeepNewline {
		content = trimNewline(content)
	}
	bundle, field, isField := strings.Cut(f.name, "/")
	switch text := utf8.Valid(content); {
	case isField && !text:
		return fmt.Errorf("%s: a field of a bundle must be UTF-8: make a binary a secret of its own", path)
	case isField:
		value, ok := set.Secrets[schema.SecretName(bundle)]
		if !ok {
			value.Fields = map[schema.SecretName]string{}
			set.Secrets[schema.SecretName(bundle)] = value
		}
		value.Fields[schema.SecretName(field)] = string(content)
	case text:
		set.Secrets[schema.SecretName(f.name)] = schema.Value{Text: string(content)}
	default:
		set.SecretsB64[schema.SecretName(f.name)] = content
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

// readFile reads a file that had size bytes a moment ago.
func readFile(path string, size int64) ([]byte, error) {
	// Without O_NONBLOCK a FIFO that came in its place would hang the sidecar.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, moved(err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, size+1))
	if err != nil {
		return nil, moved(err)
	}
	if int64(len(content)) != size {
		return nil, fmt.Errorf("%s: %w", path, errMoved)
	}
	return content, nil
}

// moved makes a file that is not there any more a reason to read again.
func moved(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, errMoved)
	}
	return err
}

// Watch returns the directories whose events can mean a change: the store's,
// its subdirectories, those that links lead to, and the parent, where the store
// itself may be replaced. A directory further up that is renamed with all that is
// in it gives none of them an event: that is left to polling.
func (d Dir) Watch() []string {
	dirs := append(above(d.Path), d.Path)
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

// Concerns leaves out what happens beside the store in its parent.
func (d Dir) Concerns(path string) bool {
	parent := filepath.Dir(d.Path)
	return filepath.Dir(path) != parent || filepath.Base(path) == filepath.Base(d.Path)
}

// above returns the directory that path is in and, where path is a link, the one
// that its target is in. Of a directory that does not exist it is the nearest
// above that does: there its coming will be an event.
func above(path string) []string {
	dirs := []string{nearest(path)}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSymlink {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, nearest(target))
		}
	}
	return dirs
}

func nearest(path string) string {
	for {
		dir := filepath.Dir(path)
		if info, err := os.Stat(dir); (err == nil && info.IsDir()) || dir == path {
			return dir
		}
		path = dir
	}
}
