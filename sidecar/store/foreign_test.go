package store_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
	"golang.org/x/sys/unix"
)

// TestEditOfBundleKeepsForeignFiles removes and replaces bundles that contain files and directories that are
// not fields. The edits must return an error with the name of the file, and must delete nothing.
func TestEditOfBundleKeepsForeignFiles(t *testing.T) {
	for _, foreign := range []string{".git-credentials", "notes/2024/diary", "my notes.txt", "id~", ".id.swp", "id/x", ".git/config"} {
		dir := store.Dir{Path: t.TempDir()}
		files := []string{dir.Path + "/aws/key", filepath.Join(dir.Path, "aws", foreign)}
		for _, path := range files {
			storetest.WriteFile(path, storetest.Tripwire)
		}
		first, _, isDir := strings.Cut(foreign, "/")
		if isDir {
			first += "/"
		}
		want := dir.Path + "/aws contains files or directories that are not fields: " + first
		edits := map[string]error{
			"cannot remove aws: ": dir.Remove(t.Context(), "aws"),
			"cannot write aws: ":  dir.SetBundle(t.Context(), "aws", map[string][]byte{"key": nil, "id": nil}),
		}
		for prefix, err := range edits {
			if err == nil || err.Error() != prefix+want {
				t.Errorf("%s: got the error %v; want %s", foreign, err, prefix+want)
			}
		}
		if first == "id/" {
			if err := dir.Remove(t.Context(), "aws/id"); err == nil {
				t.Error("Remove of a field removed a directory")
			}
		}
		for _, path := range files {
			if got, err := os.ReadFile(path); err != nil || string(got) != storetest.Tripwire {
				t.Errorf("%s: the file %s contains %q, error %v", foreign, path, got, err)
			}
		}
		if left, _ := filepath.Glob(dir.Path + "/.keyhatch*"); len(left) > 0 {
			t.Errorf("%s: the edits have left %v", foreign, left)
		}
	}
}

// TestRemoveBundleRemovesAllKindsOfFields removes a bundle with links, a FIFO, and the temporary file of a
// killed edit.
func TestRemoveBundleRemovesAllKindsOfFields(t *testing.T) {
	dir := store.Dir{Path: t.TempDir() + "/store"}
	target := filepath.Dir(dir.Path) + "/target"
	storetest.WriteFile(target+"/key", "1")
	storetest.WriteFile(dir.Path+"/aws/key", "1")
	storetest.WriteFile(dir.Path+"/aws/.keyhatch-edit-1", "1")
	if err := errors.Join(os.Symlink(target, dir.Path+"/aws/dir"), os.Symlink("none", dir.Path+"/aws/none"),
		os.Symlink(target+"/key", dir.Path+"/aws/link"), syscall.Mkfifo(dir.Path+"/aws/fifo", 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := dir.Remove(t.Context(), "aws"); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir.Path); err != nil || len(entries) > 0 {
		t.Errorf("the store contains %v, error %v", entries, err)
	}
	if _, err := os.Stat(target + "/key"); err != nil {
		t.Error(err)
	}
}

// TestRemoveLeftoversKeepsForeignFiles checks that files which an edit cannot have moved to its temporary
// directory are reported and not removed.
func TestRemoveLeftoversKeepsForeignFiles(t *testing.T) {
	for _, foreign := range []string{".keyhatch-edit-1/bundle/.git-credentials", ".keyhatch-edit-1/bundle/notes/diary", ".keyhatch-edit-1/.hidden",
		".keyhatch-edit-1/a/b/c", "aws/.keyhatch-edit-1/key"} {
		dir := store.Dir{Path: t.TempDir()}
		path := dir.Path + "/" + foreign
		storetest.WriteFile(path, storetest.Tripwire)
		if !strings.HasPrefix(foreign, "aws") {
			storetest.WriteFile(dir.Path+"/.keyhatch-edit-1/bundle/key", "1")
		}
		if err := dir.Set(t.Context(), "A", nil); err != nil {
			t.Error(err)
		}
		if removed, remaining := store.RemoveLeftovers(dir); len(removed) > 0 || len(remaining) != 1 {
			t.Errorf("%s: removed %v, could not remove %v", foreign, removed, remaining)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s: %v", foreign, err)
		}
	}
}

// inMountNamespace runs a function in a new mount namespace.
func inMountNamespace(t *testing.T, run func()) {
	t.Helper()
	testenv.Require(t, os.Geteuid() == 0, "a mount namespace requires root")
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, so the thread ends together with the goroutine
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			run()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		testenv.Require(t, false, "cannot create a mount namespace: "+err.Error())
	}
}

// TestEditsKeepMountedFiles mounts a directory, a file, and a file system in a bundle, over a bundle, and in
// the temporary directory of a killed edit. No edit may delete the mounted files.
func TestEditsKeepMountedFiles(t *testing.T) {
	important := t.TempDir()
	storetest.WriteFile(important+"/file", storetest.Tripwire)
	inMountNamespace(t, func() {
		for _, mountPoint := range []string{"aws/deep/", "aws/key", "aws/", ".keyhatch-edit-1/bundle/", ".keyhatch-edit-1/", ".keyhatch-edit-1/bundle/key"} {
			dir := store.Dir{Path: t.TempDir()}
			path := filepath.Join(dir.Path, mountPoint)
			source := important
			if strings.HasSuffix(mountPoint, "/") {
				storetest.WriteFile(path+"/x", "1")
				os.Remove(path + "/x")
			} else {
				storetest.WriteFile(path, "1")
				source += "/file"
			}
			storetest.WriteFile(dir.Path+"/aws/id", "1")
			if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
				t.Error(err)
				return
			}
			err := dir.Remove(t.Context(), "aws")
			isBundle := strings.HasPrefix(mountPoint, "aws")
			if (err != nil) != isBundle {
				t.Errorf("%s: Remove returned the error %v", mountPoint, err)
			} else if isBundle && !strings.Contains(err.Error(), "(a mount point)") {
				t.Errorf("%s: the error of Remove does not name the mount point: %v", mountPoint, err)
			}
			store.RemoveLeftovers(dir)
			if got, err := os.ReadFile(important + "/file"); err != nil || string(got) != storetest.Tripwire {
				t.Errorf("%s: the mounted file contains %q, error %v", mountPoint, got, err)
				storetest.WriteFile(important+"/file", storetest.Tripwire)
			}
			if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
				t.Errorf("%s: %v", mountPoint, err)
			}
		}
	})
}

// TestEditDoesNotFollowSwappedLink edits fields while a goroutine repeatedly exchanges the bundle with
// a link to another directory, as the owner of the store can do while root edits. No edit may change a
// file in the other directory.
func TestEditDoesNotFollowSwappedLink(t *testing.T) {
	dir := store.Dir{Path: t.TempDir() + "/store"}
	other := filepath.Dir(dir.Path) + "/other"
	bundle, link := dir.Path+"/aws", filepath.Dir(dir.Path)+"/link"
	for _, path := range []string{other, bundle} {
		storetest.WriteFile(path+"/key", storetest.Tripwire)
		storetest.WriteFile(path+"/id", storetest.Tripwire)
	}
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, bundle, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	for range 300 { // an edit fails if the bundle is a link at this moment
		dir.Set(t.Context(), "aws/key", nil)
		dir.Set(t.Context(), "aws/new", nil)
		dir.Remove(t.Context(), "aws/id")
		for _, name := range []string{"key", "id"} {
			if got, err := os.ReadFile(filepath.Join(other, name)); err != nil || string(got) != storetest.Tripwire {
				t.Fatalf("%s in the other directory contains %q, error %v", name, got, err)
			}
		}
		if entries, err := os.ReadDir(other); err != nil || len(entries) != 2 {
			t.Fatalf("the other directory contains %v, error %v", entries, err)
		}
	}
}

// An aclEntry is an entry of an ACL in the format of the extended attribute. For the tags, see acl(5).
type aclEntry struct {
	tag, perm uint16
	id        uint32
}

const undefinedID = 0xffffffff

// setACL gives a file or directory an ACL.
func setACL(t *testing.T, path, name string, entries ...aclEntry) {
	t.Helper()
	acl := binary.LittleEndian.AppendUint32(nil, 2) // the version
	for _, e := range entries {
		acl = binary.LittleEndian.AppendUint16(acl, e.tag)
		acl = binary.LittleEndian.AppendUint16(acl, e.perm)
		acl = binary.LittleEndian.AppendUint32(acl, e.id)
	}
	err := unix.Setxattr(path, "system.posix_acl_"+name, acl, 0)
	testenv.Require(t, !errors.Is(err, unix.EOPNOTSUPP), "the file system has no ACLs")
	if err != nil {
		t.Fatal(err)
	}
}

// getACL returns the ACL of a file or directory, or "".
func getACL(path, name string) string {
	acl := make([]byte, 1000)
	n, err := unix.Getxattr(path, "system.posix_acl_"+name, acl)
	if err != nil {
		return ""
	}
	return string(acl[:n])
}

// TestEditKeepsACL replaces files and a bundle with ACLs. The new files must have the same ACLs. If the old
// file has no ACL, the new file must not get the ACL that its directory gives to new files.
func TestEditKeepsACL(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	for _, name := range []string{"A", "PLAIN", "aws/id", "aws/key"} {
		storetest.WriteFile(filepath.Join(dir.Path, name), "old")
	}
	reader := []aclEntry{{1, 6, undefinedID}, {2, 4, 61240}, {4, 0, undefinedID}, {16, 4, undefinedID}, {32, 0, undefinedID}}
	member := []aclEntry{{1, 7, undefinedID}, {2, 5, 61240}, {4, 0, undefinedID}, {16, 5, undefinedID}, {32, 0, undefinedID}}
	setACL(t, dir.Path+"/A", "access", reader...)
	setACL(t, dir.Path+"/aws/id", "access", reader...)
	setACL(t, dir.Path+"/aws", "access", member...)
	setACL(t, dir.Path+"/aws", "default", member...)
	setACL(t, dir.Path, "default", member...)
	if err := os.Chmod(dir.Path+"/PLAIN", 0o640); err != nil {
		t.Fatal(err)
	}
	type acls struct{ access, dflt string }
	state := func() map[string]acls {
		all := map[string]acls{}
		for _, name := range []string{"A", "PLAIN", "aws", "aws/id", "aws/key"} {
			path := filepath.Join(dir.Path, name)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = acls{info.Mode().String() + getACL(path, "access"), getACL(path, "default")}
		}
		return all
	}
	before := state()
	for _, name := range []string{"A", "PLAIN", "aws/id", "aws/key"} {
		if err := dir.Set(t.Context(), name, []byte("new")); err != nil {
			t.Error(err)
		}
	}
	check := func(step string) {
		t.Helper()
		for name, got := range state() {
			if got != before[name] {
				t.Errorf("%s: the mode and the ACLs of %s are %q; want %q", step, name, got, before[name])
			}
		}
	}
	check("Set")
	if err := dir.SetBundle(t.Context(), "aws", map[string][]byte{"id": nil, "key": nil}); err != nil {
		t.Error(err)
	}
	check("SetBundle")
	if err := testenv.WithFailingSystemCall(unix.SYS_FSETXATTR, unix.EPERM, func() {
		want := "cannot write A: " + dir.Path + "/A has an ACL, and the new file cannot have the same ACL: operation not permitted"
		if err := dir.Set(t.Context(), "A", []byte("newer")); err == nil || err.Error() != want {
			t.Errorf("got the error %v; want %s", err, want)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dir.Path + "/A"); err != nil || string(got) != "new" {
		t.Errorf("A contains %q, error %v", got, err)
	}
}
