package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
	// OnWait is called if an edit has waited for another edit for a second. It can be nil.
	OnWait func()
}

// Read returns the complete set of secrets that the directory contained at one moment. If Read
// cannot use a file, it uses the old value of the file's secret, or of the complete bundle. If there
// is no old value, Read omits the secret. An error contains the path of the file or directory, and
// the rule that it violates. The error never contains the content of a file. If another directory has
// replaced the directory, and the new directory does not contain all secrets of the old directory,
// the error wraps ErrReplaced. If this happens to a bundle because a file system was mounted or unmounted,
// or because the bundle is a symbolic link and its target was replaced, Read uses the old value of the
// bundle. In a volume of Kubernetes, it uses the new value.
func (d Dir) Read(ctx context.Context, previous *Reading) (*Reading, error) {
	reading, err := readStable(ctx, previous, d.listFiles, d.readFiles)
	if err == ErrUnstable { // an error that wraps ErrUnstable already contains a path
		err = fmt.Errorf("%s: %w", d.Path, err)
	}
	return reading, err
}

func (d Dir) readFiles(l listing, previous *Reading) (*Reading, error) {
	r := newReading()
	var unusable []schema.SecretName
	for _, f := range l.files {
		reason, err := d.addFile(r, f, previous)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			r.Unusable[f.path] = reason
			name, _, _ := strings.Cut(f.name, "/")
			unusable = append(unusable, schema.SecretName(name))
		}
	}
	for path, id := range l.bundles {
		name, key := schema.SecretName(filepath.Base(path)), bundleKey(path)
		// Only a change of the store can replace a link by a directory that is no mount point.
		replacesLink := id == l.dir && strings.HasPrefix(previous.dirs[key].ID, linkIn(l.dir))
		if old := previous.dirs[key].ID; old != "" && old != id && !replacesLink && lacksFields(r.Set[name], previous.Set[name]) && !slices.Contains(unusable, name) {
			r.Unusable[path] = reasonReplacedBundle
			unusable = append(unusable, name)
		}
		r.dirs[key] = dirState{ID: id}
	}
	for _, name := range unusable {
		r.keepOld(name, previous)
		key := bundleKey(filepath.Join(d.Path, string(name)))
		if old, exists := previous.dirs[key]; exists {
			r.dirs[key] = old
		}
	}
	if previous.Set == nil && len(r.Set) == 0 {
		// The first read found no secret. If there are files that will not become usable by
		// themselves, the store or its permissions are probably wrong.
		for _, f := range l.files {
			if reason := r.Unusable[f.path]; reason != "" && !reason.IsIncomplete() {
				return nil, &unusableError{f.path, reason}
			}
		}
	}
	old := previous.dirs[d.Path]
	isMissing := func(name schema.SecretName) bool { _, exists := r.Set[name]; return !exists }
	if old.ID != l.dir && slices.ContainsFunc(old.Names, isMissing) {
		return nil, replacedError(d.Path)
	}
	r.dirs[d.Path] = dirState{l.dir, slices.Collect(maps.Keys(r.Set))}
	for _, path := range l.misnamed {
		r.Unusable[path] = ReasonName
	}
	return r, nil
}

// bundleKey returns the key of the bundle at path in State.dirs. It differs from the key of a store with
// the same path.
func bundleKey(path string) string { return path + "/" }

// linkIn returns the beginning of the text that identifies a linked bundle of the directory dir.
func linkIn(dir string) string { return "link in " + dir + " to " }

// lacksFields reports whether a field of the bundle old is missing in the bundle value.
func lacksFields(value, old Value) bool {
	for field := range old.Fields {
		if _, exists := value.Fields[field]; !exists {
			return true
		}
	}
	return false
}

// listFiles lists the files of the store. It performs all checks that do not need the
// content of the files.
func (d Dir) listFiles() (listing, error) {
	l := listing{bundles: map[string]string{}}
	info, err := os.Stat(d.Path)
	if err != nil {
		return listing{}, describePathError(err)
	}
	l.dir = l.addDir(info) + birthTime(d.Path)
	if err := d.listDir(&l, ""); err != nil {
		return listing{}, err
	}
	slices.SortFunc(l.files, func(a, b listedFile) int { return strings.Compare(a.name, b.name) })
	total, sizes := int64(0), map[string]int64{}
	for _, f := range l.files {
		total += f.Size
		sizes[f.path] = f.Size
	}
	if total > schema.MaxPush {
		return listing{}, fmt.Errorf("%s: %w: the files have %d bytes in total, but the maximum size of a push is %d bytes; the largest files are %s",
			d.Path, ErrTooLarge, total, schema.MaxPush, largest(sizes))
	}
	return l, nil
}

// listDir adds the files of the subdirectory bundle of the store to the listing. If bundle is
// empty, listDir adds the files and the bundles of the directory of the store. It skips ignored
// names and follows symbolic links.
func (d Dir) listDir(l *listing, bundle string) error {
	dir := filepath.Join(d.Path, bundle)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return describePathError(err)
	}
	for _, entry := range entries {
		name, path := filepath.Join(bundle, entry.Name()), filepath.Join(dir, entry.Name())
		switch {
		case isIgnored(entry.Name()):
			continue
		case !schema.ValidSecretName(entry.Name()):
			l.misnamed = append(l.misnamed, path)
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			if _, err := os.Lstat(path); err != nil { // removed, or no permission to search dir
				return asUnstable(describePathError(err))
			}
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			l.addUnusable(name, path, reasonDangling)
		case err != nil:
			l.addUnusable(name, path, reasonOf(err))
		case info.IsDir() && bundle != "":
			l.addUnusable(name, path, reasonDirInBundle)
		case info.IsDir():
			id := l.addDir(info) + birthTime(path)
			link, err := os.Readlink(path)
			switch {
			case strings.HasPrefix(link, dataLink+"/") || err != nil && !isMountPoint(path):
				id = l.dir
			case err == nil:
				id = linkIn(l.dir) + id
			}
			l.bundles[path] = id
			if err := d.listDir(l, name); errors.Is(err, fs.ErrNotExist) {
				return asUnstable(err)
			} else if err != nil {
				l.addUnusable(name, path, reasonOf(err))
			}
		case !info.Mode().IsRegular():
			l.addUnusable(name, path, reasonKind)
		case info.Size() > schema.MaxPush:
			l.addUnusable(name, path, reasonTooLarge)
		default:
			if err := l.add(name, path, info); err != nil {
				return err
			}
		}
	}
	return nil
}

// errBinaryField is the error of an edit that would write a field that Read cannot use.
var errBinaryField = errors.New(string(reasonBinaryField))

// addFile reads a file and adds its content to r, as a secret or as a field of a bundle. If the
// file cannot be used, addFile returns a reason. It returns an error only if the store must be
// read again.
func (d Dir) addFile(r *Reading, f listedFile, previous *Reading) (Reason, error) {
	if f.reason != "" {
		return f.reason, nil
	}
	content, reason, err := r.readFile(f, previous)
	switch {
	case errors.Is(err, ErrUnstable):
		return "", err
	case err != nil:
		return reasonOf(err), nil
	case reason != "":
		return reason, nil
	}
	if !d.KeepNewline {
		content = TrimNewline(content)
	}
	if CheckPEM(content) == PEMTruncated {
		r.PEMProblems[f.path] = PEMTruncated
	}
	bundle, field, isField := strings.Cut(f.name, "/")
	switch isText := utf8.Valid(content); {
	case isField && !isText:
		return reasonBinaryField, nil
	case isField:
		value, exists := r.Set[schema.SecretName(bundle)]
		if !exists {
			value.Fields = map[schema.SecretName][]byte{}
			r.Set[schema.SecretName(bundle)] = value
		}
		value.Fields[schema.SecretName(field)] = content
	default:
		r.Set[schema.SecretName(f.name)] = Value{Bytes: content, Binary: !isText}
	}
	return "", nil
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
// If a directory above the parent directory is renamed, no event arrives from the returned
// directories. Only polling detects such a change.
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

// watchDirOf returns the directory that the sidecar must watch, in addition to parent, to detect all
// changes of an entry of parent. For a subdirectory, watchDirOf returns the subdirectory itself. For a
// link to a directory, it returns the target. For a link to a file, it returns the directory that
// contains the target. For a link without a target, it returns the nearest existing directory above the
// missing target. For all other entries, it returns "". isDir reports whether the entry is a directory,
// or a link to a directory.
func watchDirOf(parent string, entry fs.DirEntry) (dir string, isDir bool) {
	path := filepath.Join(parent, entry.Name())
	if entry.IsDir() {
		return path, true
	}
	if entry.Type() != fs.ModeSymlink {
		return "", false
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil { // watch for the creation of the target
		link, err := os.Readlink(path)
		if err != nil {
			return "", false
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(parent, link)
		}
		return nearestExistingDir(link), false
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

// dataLink is a link in a volume of Kubernetes. The kubelet creates all directories of the volume again
// for each update, and then replaces this link.
const dataLink = "..data"

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
