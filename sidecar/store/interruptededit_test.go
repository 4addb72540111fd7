package store_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
	"golang.org/x/sys/unix"
)

// TestEditRemovesLeftoversOfKilledEdit checks that a later edit removes the files of an edit
// that was killed, and that no edit removes the files of a running edit.
func TestEditRemovesLeftoversOfKilledEdit(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	for _, name := range []string{".keyhatch-edit-1", ".keyhatch-edit-2/bundle/key", "aws/.keyhatch-edit-3", "gcp/.keyhatch-edit-4"} {
		storetest.WriteFile(filepath.Join(dir.Path, name), storetest.Tripwire)
	}
	if err := dir.Set(t.Context(), "A", nil); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"/.k*", "/*/.k*"} {
		if left, err := filepath.Glob(dir.Path + pattern); err != nil || len(left) > 0 {
			t.Errorf("the leftovers %v are still in the store, error %v", left, err)
		}
	}
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			if err := dir.Set(t.Context(), "B"+strconv.Itoa(i), nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// TestEditKeepsFilesOfOthersWithoutLock edits a store on a file system that has no locks. The edits
// must not remove other temporary files in the store, because these files can belong to a running edit
// of another process.
func TestEditKeepsFilesOfOthersWithoutLock(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	for _, name := range []string{".keyhatch-edit-1", "aws/.keyhatch-edit-2"} {
		storetest.WriteFile(filepath.Join(dir.Path, name), storetest.Tripwire)
	}
	if err := testenv.WithFailingSystemCall(unix.SYS_FLOCK, unix.ENOLCK, func() {
		for _, name := range []string{"A", "aws/id"} {
			if err := dir.Set(t.Context(), name, nil); err != nil {
				t.Error(err)
			}
		}
		if err := dir.Remove(t.Context(), "aws/id"); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".keyhatch-edit-1", "aws/.keyhatch-edit-2"} {
		if _, err := os.Stat(filepath.Join(dir.Path, name)); err != nil {
			t.Errorf("the edit removed a file that it did not create: %v", err)
		}
	}
}

// TestRemoveLeftovers checks that RemoveLeftovers removes the files of killed edits, but not the files
// of a running edit, and that it returns the paths that it could not remove.
func TestRemoveLeftovers(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	stores := store.Merged{store.File{Path: dir.Path + "/A"}, dir}
	paths := []string{dir.Path + "/.keyhatch-edit-1", dir.Path + "/aws/.keyhatch-edit-2"}
	storetest.WriteFile(paths[0]+"/bundle/key", storetest.Tripwire)
	storetest.WriteFile(paths[1], storetest.Tripwire)
	for _, path := range paths { // the lock, and not the age, shows whether an edit is running
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	edit, err := os.Open(dir.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer edit.Close()
	if err := unix.Flock(int(edit.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if removed, remaining := store.RemoveLeftovers(stores); len(removed)+len(remaining)+len(store.Leftovers(stores)) > 0 {
		t.Errorf("during an edit: removed %v, could not remove %v", removed, remaining)
	}
	edit.Close()
	if got := store.Leftovers(stores); !slices.Equal(got, paths) {
		t.Errorf("Leftovers returned %v, want %v", got, paths)
	}
	if err := testenv.WithFailingSystemCall(unix.SYS_UNLINKAT, unix.EROFS, func() {
		if removed, remaining := store.RemoveLeftovers(stores); len(removed) > 0 || !slices.Equal(remaining, paths) {
			t.Errorf("read-only: removed %v, could not remove %v; want %v", removed, remaining, paths)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if removed, remaining := store.RemoveLeftovers(stores); !slices.Equal(removed, paths) || len(remaining) > 0 {
		t.Errorf("removed %v, could not remove %v; want %v", removed, remaining, paths)
	}
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s still exists", path)
		}
	}
}

// TestLeftoversWithoutLock uses a file system that has no locks. RemoveLeftovers must report old
// temporary files, but not new temporary files, which can belong to a running edit. It must remove none
// of them.
func TestLeftoversWithoutLock(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	for _, name := range []string{"/.keyhatch-edit-new", "/.keyhatch-edit-old"} {
		storetest.WriteFile(dir.Path+name, storetest.Tripwire)
	}
	old := dir.Path + "/.keyhatch-edit-old"
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := testenv.WithFailingSystemCall(unix.SYS_FLOCK, unix.ENOLCK, func() {
		if removed, remaining := store.RemoveLeftovers(dir); len(removed) > 0 || !slices.Equal(remaining, []string{old}) {
			t.Errorf("removed %v, could not remove %v; want %v", removed, remaining, old)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// TestEditDoesNotCleanTargetOfLink edits a field of a bundle that is a symbolic link. The edit
// fails, and must not remove files in the target of the link.
func TestEditDoesNotCleanTargetOfLink(t *testing.T) {
	root := t.TempDir()
	dir := store.Dir{Path: root + "/store"}
	file := root + "/other/.keyhatch-edit-1"
	storetest.WriteFile(file, storetest.Tripwire)
	storetest.WriteFile(dir.Path+"/A", "1")
	if err := os.Symlink("../other", dir.Path+"/aws"); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{dir.Set(t.Context(), "aws/id", nil), dir.Remove(t.Context(), "aws/id")} {
		if _, ok := errors.AsType[*store.ConflictError](err); !ok {
			t.Errorf("got the error %v, want a conflict", err)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

// TestSetWritesValueBeforeFileHasName checks that a value is complete when its temporary file gets a
// name. Otherwise, if the process is killed, a part of the value can remain in the store.
func TestSetWritesValueBeforeFileHasName(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	events, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(events)
	if _, err := unix.InotifyAddWatch(events, dir.Path, unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	if err := dir.Set(t.Context(), "A", []byte(storetest.Tripwire)); err != nil {
		t.Fatal(err)
	}
	var buf [4096]byte
	n, err := unix.Read(events, buf[:])
	if err != nil && err != unix.EAGAIN {
		t.Fatal(err)
	}
	if n > 0 && bytes.Contains(buf[:n], []byte(".keyhatch-edit-")) {
		t.Error("Set wrote to a temporary file that has a name")
	}
}

// TestCanceledEditChangesNothing cancels an edit that waits for another edit. The edit must end,
// and must not change the store after the other edit has ended.
func TestCanceledEditChangesNothing(t *testing.T) {
	path := t.TempDir()
	other := lockStore(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	dir := store.Dir{Path: path, OnWait: cancel}
	if err := dir.Set(ctx, "A", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got the error %v, want %v", err, context.Canceled)
	}
	other.Close()
	if err := dir.Set(ctx, "A", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the other edit: got the error %v, want %v", err, context.Canceled)
	}
	if entries, err := os.ReadDir(path); err != nil || len(entries) > 0 {
		t.Errorf("the store contains %v, error %v; want no files", entries, err)
	}
}

// TestFailedSetRemovesNewBundle writes the first field of a bundle on a full disk. The directory of
// the bundle must not remain.
func TestFailedSetRemovesNewBundle(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	if err := testenv.WithFailingSystemCall(unix.SYS_FSYNC, unix.ENOSPC, func() {
		if err := dir.Set(t.Context(), "new/field", []byte("1")); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("got the error %v, want %v", err, unix.ENOSPC)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir.Path); err != nil || len(entries) > 0 {
		t.Errorf("the store contains %v, error %v; want no files", entries, err)
	}
}

// TestEditOfReplacedStoreChangesNothing replaces the directory of a store, or the target of its link, while
// an edit waits for another edit. The edit must fail, and must change neither directory.
func TestEditOfReplacedStoreChangesNothing(t *testing.T) {
	for _, isLink := range []bool{false, true} {
		base := t.TempDir()
		path, old := base+"/store", base+"/old"
		for _, dir := range []string{old, base + "/new"} {
			storetest.WriteFile(dir+"/OTHER", "1")
		}
		replace := func() error { return errors.Join(os.Rename(path, old), os.Rename(base+"/new", path)) }
		if isLink {
			replace = func() error { return errors.Join(os.Remove(path), os.Symlink("new", path)) }
			if err := os.Symlink("old", path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Rename(old, path); err != nil {
			t.Fatal(err)
		}
		other := lockStore(t, path)
		dir := store.Dir{Path: path, OnWait: func() {
			if err := replace(); err != nil {
				t.Error(err)
			}
			other.Close()
		}}
		if err := dir.Remove(t.Context(), "OTHER"); err == nil || !strings.Contains(err.Error(), path+" was replaced") {
			t.Errorf("link %v: got the error %v", isLink, err)
		}
		for _, dir := range []string{old, path} {
			if _, err := os.Stat(dir + "/OTHER"); err != nil {
				t.Errorf("link %v: %v", isLink, err)
			}
		}
	}
}

// TestEditOfBundleKeepsNewField checks the last step of edits that replace or remove a bundle. Another
// program has created a field after the edit had checked the fields. The field must stay in the bundle.
func TestEditOfBundleKeepsNewField(t *testing.T) {
	for _, c := range []struct{ parent, name, newField string }{
		{".", ".keyhatch-edit-1", "aws/key"},
		{".keyhatch-edit-1", "bundle", ""},
		{".keyhatch-edit-1", "bundle", "aws/other"}, // the other program has created the bundle again
	} {
		dir := store.Dir{Path: t.TempDir()}
		old := filepath.Join(dir.Path, c.parent, c.name)
		for _, field := range []string{"id", "key", ".keyhatch-edit-2", "token"} {
			storetest.WriteFile(old+"/"+field, "old "+field)
		}
		if c.newField != "" {
			storetest.WriteFile(dir.Path+"/"+c.newField, "new")
		}
		err := dir.RemoveOldBundle(c.parent, c.name, "aws", "id", "key")
		if err == nil || !strings.Contains(err.Error(), "another program has created aws/token") {
			t.Errorf("%+v: got the error %v", c, err)
		}
		if text, err := os.ReadFile(dir.Path + "/aws/token"); string(text) != "old token" {
			t.Errorf("%+v: the new field contains %q, error %v", c, text, err)
		}
		if c.newField != "" {
			if text, err := os.ReadFile(dir.Path + "/" + c.newField); string(text) != "new" {
				t.Errorf("%+v: the field contains %q, error %v", c, text, err)
			}
		}
		if entries, _ := os.ReadDir(dir.Path + "/aws"); len(entries) > 2 {
			t.Errorf("%+v: the bundle contains %v", c, entries)
		}
		if _, err := os.Lstat(old); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%+v: the old directory remains: %v", c, err)
		}
	}
}

// lockStore locks the store at path, as an edit does. Close the returned file to unlock the store.
func lockStore(t *testing.T, path string) *os.File {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return file
}
