package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
	"golang.org/x/sys/unix"
)

func TestDirSetRemoveAndList(t *testing.T) {
	dir := store.Dir{Path: filepath.Join(t.TempDir(), "new")}
	for _, want := range []bool{true, false} {
		if created, err := dir.Create(); err != nil || created != want {
			t.Fatalf("Create returned %t, error %v; want %t", created, err, want)
		}
	}
	for name, value := range map[string]string{"A": "1", "aws/key": "2", "aws/secret": "3", "B": "4"} {
		if err := dir.Set(t.Context(), name, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]os.FileMode{"": 0o700 | os.ModeDir, "aws": 0o700 | os.ModeDir, "A": 0o600, "aws/key": 0o600} {
		if info, err := os.Stat(filepath.Join(dir.Path, path)); err != nil || info.Mode() != want {
			t.Errorf("the path %q in the store has mode %v, error %v; want mode %v", path, info.Mode(), err, want)
		}
	}
	if err := dir.Set(t.Context(), "A", []byte("new")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"aws", "B"} {
		if err := dir.Remove(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	if names, err := dir.List(); err != nil || !slices.Equal(names, []string{"A"}) {
		t.Errorf("List returned %v, error %v; want only A", names, err)
	}
	if entries, err := os.ReadDir(dir.Path); err != nil || len(entries) != 1 {
		t.Errorf("the directory contains the entries %v, error %v; want only A", entries, err)
	}
	for _, name := range []string{"", "..", ".x", "a/b/c", "a/", "/a", "a/..", "a b", "x~", "x.swp"} {
		if err := dir.Set(t.Context(), name, nil); err == nil {
			t.Errorf("Set accepted the invalid name %q", name)
		}
		if err := dir.Remove(t.Context(), name); err == nil {
			t.Errorf("Remove accepted the invalid name %q", name)
		}
	}
}

func TestDirEditErrors(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	if err := dir.Set(t.Context(), "aws/key", []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := dir.Set(t.Context(), "PLAIN", nil); err != nil {
		t.Fatal(err)
	}
	missing := store.Dir{Path: dir.Path + "/missing/store"}
	_, listErr := missing.List()
	_, createErr := missing.Create()
	for _, c := range []struct {
		err  error
		want string
	}{
		{listErr, "cannot read the store: " + missing.Path + " does not exist"},
		{missing.Remove(t.Context(), "A"), "cannot remove A: " + missing.Path + " does not exist"},
		{createErr, "cannot create the directory " + missing.Path + ": no such file or directory"},
		{missing.Set(t.Context(), "A", nil), "cannot write A: " + missing.Path + " does not exist"},
		{dir.Remove(t.Context(), "A"), "cannot remove A: the store has no such secret"},
		{dir.Remove(t.Context(), "aws/key/x"), "invalid name: use NAME or BUNDLE/FIELD; each part must match " + schema.SecretNamePattern},
		{dir.Remove(t.Context(), "aws/none"), "cannot remove aws/none: the store has no such secret"},
		{dir.Set(t.Context(), "aws", nil), "cannot write aws: aws is a bundle and not a secret"},
		{dir.Set(t.Context(), "PLAIN/x", nil), "cannot write PLAIN/x: PLAIN is a secret and not a bundle"},
		{dir.SetBundle(t.Context(), "PLAIN", map[string][]byte{"x": nil}), "cannot write PLAIN: PLAIN is a secret and not a bundle"},
		{dir.SetBundle(t.Context(), "aws", map[string][]byte{"x": nil}), "cannot write aws: the bundle also contains key"},
		{dir.Set(t.Context(), "aws/key", []byte("\xff")), "cannot write aws/key: a field of a bundle must be valid UTF-8: store the binary value as a separate secret"},
		{dir.SetBundle(t.Context(), "new", map[string][]byte{"x": []byte("\xff")}), "cannot write new: a field of a bundle must be valid UTF-8: store the binary value as a separate secret"},
		{dir.SetBundle(t.Context(), "new", map[string][]byte{"../x": nil}), "cannot write new: invalid name: use NAME or BUNDLE/FIELD; each part must match " + schema.SecretNamePattern},
		{dir.Set(t.Context(), "x.swp", nil), "invalid name: the sidecar ignores the name x.swp, because editors create temporary files with such names"},
	} {
		if c.err == nil || c.err.Error() != c.want {
			t.Errorf("got the error %v; want %s", c.err, c.want)
		}
	}
}

// TestCheckSetFindsErrorsWithoutWriting checks that CheckSet returns the errors that Set and
// SetBundle would return, and that the store does not change.
func TestCheckSetFindsErrorsWithoutWriting(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	storetest.WriteFile(dir.Path+"/PLAIN", "1")
	storetest.WriteFile(dir.Path+"/aws/key", "1")
	missing := store.Dir{Path: dir.Path + "/missing/store"}
	file := store.Dir{Path: dir.Path + "/PLAIN"}
	for _, c := range []struct {
		dir    store.Dir
		name   string
		fields []string
		want   string // "" for no error
	}{
		{dir, "PLAIN", nil, ""},
		{dir, "NEW", nil, ""},
		{dir, "aws/key", nil, ""},
		{dir, "new/key", nil, ""},
		{dir, "aws", []string{"key", "other"}, ""},
		{dir, "new", []string{"key"}, ""},
		{store.Dir{Path: dir.Path + "/new"}, "A", nil, ""},
		{missing, "A", nil, "cannot create the directory " + missing.Path + ": no such file or directory"},
		{file, "A", nil, "cannot write A: " + file.Path + ": not a directory"},
		{dir, "aws", nil, "cannot write aws: aws is a bundle and not a secret"},
		{dir, "PLAIN/x", nil, "cannot write PLAIN/x: PLAIN is a secret and not a bundle"},
		{dir, "PLAIN", []string{"x"}, "cannot write PLAIN: PLAIN is a secret and not a bundle"},
		{dir, "aws", []string{"x"}, "cannot write aws: the bundle also contains key"},
		{dir, "x.swp", nil, "invalid name: the sidecar ignores the name x.swp, because editors create temporary files with such names"},
		{dir, "new", []string{"4913"}, "invalid name: the sidecar ignores the name 4913, because editors create temporary files with such names"},
	} {
		err := c.dir.CheckSet(c.name, c.fields)
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
			t.Errorf("CheckSet(%s, %v) returned the error %v; want %q", c.name, c.fields, err, c.want)
		}
	}
	if names, err := dir.List(); err != nil || !slices.Equal(names, []string{"PLAIN", "aws/key"}) {
		t.Errorf("the store contains %v, error %v", names, err)
	}
}

// withFileSystemUID calls run with the file permissions of the user uid. The test must run as root.
func withFileSystemUID(t *testing.T, uid int, run func()) {
	t.Helper()
	testenv.Require(t, os.Geteuid() == 0, "changing the uid for file access requires root")
	runtime.LockOSThread() // Setfsuid changes only this thread
	defer runtime.UnlockOSThread()
	for id, set := range map[int]func(int) error{uid: unix.Setfsuid, uid + 1: unix.Setfsgid} {
		if err := set(id); err != nil {
			t.Fatal(err)
		}
		defer set(0)
	}
	run()
}

// TestCheckSetFindsStoreThatIsNotWritable calls CheckSet as a user who cannot write to the store.
// CheckSet must return an error.
func TestCheckSetFindsStoreThatIsNotWritable(t *testing.T) {
	dir := store.Dir{Path: t.TempDir() + "/store"}
	storetest.WriteFile(dir.Path+"/aws/key", "1")
	for _, path := range []string{filepath.Dir(filepath.Dir(dir.Path)), filepath.Dir(dir.Path), dir.Path} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	withFileSystemUID(t, 65533, func() {
		for _, c := range []struct {
			dir        store.Dir
			name, want string
		}{
			{dir, "A", "cannot write A: " + dir.Path + ": permission denied"},
			{store.Dir{Path: dir.Path + "/new"}, "A", "cannot create the directory " + dir.Path + "/new: permission denied"},
		} {
			if err := c.dir.CheckSet(c.name, nil); err == nil || err.Error() != c.want {
				t.Errorf("CheckSet returned the error %v; want %s", err, c.want)
			}
		}
	})
}

// TestEditKeepsOwnerAndMode edits a store of another user as root. A changed file or bundle must keep
// its owner, its group, and its mode. A new file or
// directory must get the owner and the group of the directory that contains it.
func TestEditKeepsOwnerAndMode(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "changing the owner of a file requires root")
	home := t.TempDir()
	dir := store.Dir{Path: home + "/store"}
	for _, name := range []string{"A", "aws/key"} {
		storetest.WriteFile(filepath.Join(dir.Path, name), "old")
	}
	own := func(path string, id int, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.Chown(path, id, id+1), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	own(home, 50, 0o755)
	own(dir.Path, 100, 0o750)
	own(dir.Path+"/A", 200, 0o640)
	own(dir.Path+"/aws", 300, 0o710|fs.ModeSetgid|fs.ModeSticky)
	own(dir.Path+"/aws/key", 400, 0o604)
	check := func(path string, id uint32, mode os.FileMode) {
		t.Helper()
		info, err := os.Stat(filepath.Join(home, path))
		if err != nil {
			t.Error(err)
			return
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != id || st.Gid != id+1 || info.Mode()&^fs.ModeDir != mode {
			t.Errorf("%s belongs to %d:%d and has mode %v; want %d:%d and mode %v", path, st.Uid, st.Gid, info.Mode(), id, id+1, mode)
		}
	}
	for _, name := range []string{"A", "B", "new/key", "aws/key", "aws/new"} {
		if err := dir.Set(t.Context(), name, []byte("new")); err != nil {
			t.Fatal(err)
		}
	}
	check("store/A", 200, 0o640)
	check("store/B", 100, 0o600)
	check("store/new", 100, 0o700)
	check("store/new/key", 100, 0o600)
	check("store/aws/key", 400, 0o604)
	check("store/aws/new", 300, 0o600)
	for _, name := range []string{"aws", "created"} {
		if err := dir.SetBundle(t.Context(), name, map[string][]byte{"key": nil, "new": nil, "third": nil}); err != nil {
			t.Fatal(err)
		}
	}
	check("store/aws", 300, 0o710|fs.ModeSetgid|fs.ModeSticky)
	check("store/aws/key", 400, 0o604)
	check("store/aws/new", 300, 0o600)
	check("store/aws/third", 300, 0o600)
	check("store/created", 100, 0o700)
	check("store/created/key", 100, 0o600)
	if _, err := (store.Dir{Path: home + "/other"}).Create(); err != nil {
		t.Fatal(err)
	}
	check("other", 50, 0o700)
}

// TestEditFailsIfOwnerWouldChange edits a store as a user who cannot give a file to its old
// owner. The edit must fail. Otherwise the old owner, for example the user of the sidecar, could
// not read the new file.
func TestEditFailsIfOwnerWouldChange(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	for _, name := range []string{"A", "aws/key"} {
		storetest.WriteFile(filepath.Join(dir.Path, name), "old")
	}
	if err := errors.Join(os.Chmod(filepath.Dir(dir.Path), 0o755), os.Chmod(dir.Path, 0o777), os.Chmod(dir.Path+"/aws", 0o777), os.Chmod(dir.Path+"/aws/key", 0o644)); err != nil {
		t.Fatal(err)
	}
	withFileSystemUID(t, 65533, func() {
		for name, err := range map[string]error{
			"A":       dir.Set(t.Context(), "A", []byte("new")),
			"aws/key": dir.Set(t.Context(), "aws/key", []byte("new")),
		} {
			want := "cannot write " + name + ": " + filepath.Join(dir.Path, name) + " belongs to the uid 0 and the gid 0, and the new file cannot have this owner and group: operation not permitted"
			if err == nil || err.Error() != want {
				t.Errorf("got the error %v; want %s", err, want)
			}
		}
		if err := dir.SetBundle(t.Context(), "aws", map[string][]byte{"key": nil}); err == nil {
			t.Error("SetBundle changed the owner of a bundle")
		}
	})
	if files, err := filepath.Glob(dir.Path + "/*/*"); err != nil || len(files) != 1 {
		t.Errorf("the bundles contain the files %v, error %v; want only aws/key", files, err)
	}
	for _, name := range []string{"A", "aws/key"} {
		if got, err := os.ReadFile(filepath.Join(dir.Path, name)); err != nil || string(got) != "old" {
			t.Errorf("%s contains %q, error %v", name, got, err)
		}
	}
}

// TestEditDoesNotChangeTargetsOfLinks edits secrets, fields, and bundles that are symbolic links. The
// edits must replace or remove the links, and must not change their targets. An edit of a field of a
// bundle that is a link must return an error.
func TestEditDoesNotChangeTargetsOfLinks(t *testing.T) {
	root := t.TempDir()
	dir := store.Dir{Path: root + "/store"}
	storetest.WriteFile(root+"/targets/secret", "old")
	storetest.WriteFile(root+"/targets/bundle/key", "old")
	storetest.WriteFile(dir.Path+"/own/key", "old")
	for link, target := range map[string]string{"A": "../targets/secret", "B": "../targets/secret", "own/link": "../../targets/secret", "aws": "../targets/bundle", "gcp": "../targets/bundle", "dangling": "none"} {
		if err := os.Symlink(target, filepath.Join(dir.Path, link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"A": root + "/targets/secret", "aws": root + "/targets/bundle", "own/link": root + "/targets/secret", "own": "", "own/key": "", "dangling": "", "none": ""} {
		if got := dir.LinkTarget(name); got != want {
			t.Errorf("the target of %s is %q; want %q", name, got, want)
		}
	}
	for _, err := range []error{dir.Set(t.Context(), "A", []byte("new")), dir.Set(t.Context(), "own/link", []byte("new")), dir.Set(t.Context(), "dangling", []byte("new")), dir.Remove(t.Context(), "B"),
		dir.SetBundle(t.Context(), "aws", map[string][]byte{"key": []byte("new")}), dir.Remove(t.Context(), "gcp")} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := os.Symlink("../targets/bundle", dir.Path+"/gcp"); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{dir.Set(t.Context(), "gcp/key", nil), dir.CheckSet("gcp/key", nil), dir.Remove(t.Context(), "gcp/key")} {
		conflict, ok := errors.AsType[*store.ConflictError](err)
		if !ok || conflict.Remove != "gcp" {
			t.Errorf("an edit of a field of a linked bundle returned the error %v; want a conflict with gcp", err)
		}
	}
	for name, want := range map[string]string{"targets/secret": "old", "targets/bundle/key": "old", "store/A": "new", "store/own/link": "new", "store/dangling": "new", "store/aws/key": "new"} {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
			t.Errorf("%s contains %q, error %v; want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"A", "own/link", "dangling", "aws"} {
		if info, err := os.Lstat(filepath.Join(dir.Path, name)); err != nil || info.Mode().Type() == os.ModeSymlink {
			t.Errorf("%s is still a link, error %v", name, err)
		}
	}
}

// TestSetBundleReplacesAllFieldsInOneStep reads a bundle while another goroutine writes the
// bundle. The two fields of the bundle must always belong together.
func TestSetBundleReplacesAllFieldsInOneStep(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	set := func(i int) error {
		text := []byte(strconv.Itoa(i))
		return dir.SetBundle(t.Context(), "aws", map[string][]byte{"id": text, "key": text})
	}
	if err := set(0); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		for i := range 100 {
			if err := set(i); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			if entries, err := os.ReadDir(dir.Path); err != nil || len(entries) != 1 {
				t.Errorf("the directory contains the entries %v, error %v; want only aws", entries, err)
			}
			return
		default:
		}
		// The fields of this directory belong together, because an edit replaces the complete
		// directory.
		bundle, err := os.OpenRoot(dir.Path + "/aws")
		if err != nil {
			t.Fatal(err)
		}
		id, idErr := bundle.ReadFile("id")
		key, keyErr := bundle.ReadFile("key")
		bundle.Close()
		if idErr == nil && keyErr == nil && string(id) != string(key) {
			t.Fatalf("the fields are %q and %q", id, key)
		}
	}
}

// TestEditOfFieldSyncsBundle removes a field while fsync fails. Remove must return the error,
// because the changed directory of the bundle may not be on the disk.
func TestEditOfFieldSyncsBundle(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	storetest.WriteFile(dir.Path+"/aws/id", "1")
	if err := testenv.WithFailingSystemCall(unix.SYS_FSYNC, unix.EIO, func() {
		want := "cannot remove aws/id: " + dir.Path + "/aws: input/output error"
		if err := dir.Remove(t.Context(), "aws/id"); err == nil || err.Error() != want {
			t.Errorf("the sync of the directory fails: got the error %v; want %s", err, want)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// TestEditOfBundleThatCannotBeRenamed edits a complete bundle while each rename fails with EXDEV, as
// on an overlay file system. The edits must return ErrCannotRename and must not change the bundle.
func TestEditOfBundleThatCannotBeRenamed(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	if err := dir.Set(t.Context(), "aws/key", []byte("old")); err != nil {
		t.Fatal(err)
	}
	for call, edit := range map[uint32]func() error{
		unix.SYS_RENAMEAT:  func() error { return dir.Remove(t.Context(), "aws") },
		unix.SYS_RENAMEAT2: func() error { return dir.SetBundle(t.Context(), "aws", map[string][]byte{"key": []byte("new")}) },
	} {
		if err := testenv.WithFailingSystemCall(call, unix.EXDEV, func() {
			if err := edit(); !errors.Is(err, store.ErrCannotRename) || !strings.Contains(err.Error(), dir.Path+"/aws: ") {
				t.Errorf("got the error %v, want %v", err, store.ErrCannotRename)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(dir.Path + "/aws/key"); err != nil || string(got) != "old" {
		t.Errorf("the field contains %q, error %v", got, err)
	}
}
