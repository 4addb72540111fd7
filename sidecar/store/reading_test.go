package store

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// writeAll writes the text to a file of the store without a rename.
func writeAll(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// read reads the store in the same way as a child process, which receives previous through a
// pipe.
func read(t *testing.T, s Store, previous *Reading) (*Reading, error) {
	t.Helper()
	if previous == nil {
		return s.Read(context.Background(), nil)
	}
	line, err := previous.Set.EncodePush()
	if err != nil {
		t.Fatal(err)
	}
	var input bytes.Buffer
	if err := newResult(nil, previous.State).write(&input, line); err != nil {
		t.Fatal(err)
	}
	received, err := readPrevious(&input)
	if err != nil {
		t.Fatal(err)
	}
	return s.Read(context.Background(), received)
}

// mustRead reads the store and checks the value of the secret A.
func mustRead(t *testing.T, s Store, previous *Reading, want string, unfinished bool) *Reading {
	t.Helper()
	r, err := read(t, s, previous)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(r.Set["A"].Bytes); got != want || (len(r.Unusable) > 0) != unfinished {
		t.Fatalf("Read returned the value %q and the unfinished files %v; want %q and unfinished files: %v", got, r.Unusable, want, unfinished)
	}
	return r
}

// TestFileThatBecameShorterIsUsedLater checks that a file that became shorter in place is used
// only after some time, and that a shorter file that replaces it by a rename is used at once.
func TestFileThatBecameShorterIsUsedLater(t *testing.T) {
	dir := Dir{Path: t.TempDir()}
	writeAll(t, dir.Path+"/A", "long value")
	r := mustRead(t, dir, nil, "long value", false)
	writeAll(t, dir.Path+"/A", "short")
	r = mustRead(t, dir, r, "long value", true)
	for len(r.Unusable) > 0 {
		var err error
		if r, err = read(t, dir, r); err != nil {
			t.Fatal(err)
		}
	}
	r = mustRead(t, dir, r, "short", false)
	if err := dir.Set(t.Context(), "A", []byte("s")); err != nil {
		t.Fatal(err)
	}
	mustRead(t, dir, r, "s", false)
}

// TestUnchangedOpenFileIsComplete checks that a file that a process has open for writing is
// complete if its content has not changed since the last read.
func TestUnchangedOpenFileIsComplete(t *testing.T) {
	dir := Dir{Path: t.TempDir()}
	writeAll(t, dir.Path+"/A", "old")
	r := mustRead(t, dir, nil, "old", false)
	f, err := os.OpenFile(dir.Path+"/A", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r = mustRead(t, dir, r, "old", false)
	f.WriteString("new")
	r = mustRead(t, dir, r, "old", true)
	f.Close()
	mustRead(t, dir, r, "new", false)
}

// TestBundleKeepsAllOldFields checks that a bundle keeps all old fields while one field is not
// complete.
func TestBundleKeepsAllOldFields(t *testing.T) {
	dir := Dir{Path: t.TempDir()}
	if err := dir.SetBundle(t.Context(), "aws", map[string][]byte{"key": []byte("old"), "secret": []byte("old")}); err != nil {
		t.Fatal(err)
	}
	r, err := dir.Read(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	writeAll(t, dir.Path+"/aws/key", "new")
	writeAll(t, dir.Path+"/aws/secret", "")
	for _, want := range []string{"old", "new"} {
		if r, err = read(t, dir, r); err != nil {
			t.Fatal(err)
		}
		for _, field := range []schema.SecretName{"key", "secret"} {
			if got := string(r.Set["aws"].Fields[field]); got != want {
				t.Errorf("the field %s is %q, want %q", field, got, want)
			}
		}
		if err := dir.Set(t.Context(), "aws/secret", []byte("new")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFileIsUsedWithoutLeases checks that a file is used after it has not changed for some time
// if the kernel does not report whether a process has the file open for writing.
func TestFileIsUsedWithoutLeases(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "the test must change the owner of a file")
	dir := Dir{Path: t.TempDir()}
	writeAll(t, dir.Path+"/A", "old")
	if err := os.Chown(dir.Path+"/A", 1, 1); err != nil {
		t.Fatal(err)
	}
	// A process without CAP_LEASE gets no lease for a file of another user. The capabilities of
	// a thread end with the thread, because the goroutine does not unlock it.
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << unix.CAP_LEASE
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(dir.Path+"/A", os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if state := leaseFile(f); state != writersUnknown {
		t.Fatalf("leaseFile returned %v for the file of another user", state)
	}
	f.Close()
	r := mustRead(t, dir, nil, "old", false)
	r = mustRead(t, dir, r, "old", false) // the file is unchanged, so Read must use it again at once
	writeAll(t, dir.Path+"/A", "newer")
	r = mustRead(t, dir, r, "old", true)
	for len(r.Unusable) > 0 {
		if r, err = read(t, dir, r); err != nil {
			t.Fatal(err)
		}
	}
	mustRead(t, dir, r, "newer", false)

	file := File{Path: dir.Path + "/a.env", Format: Dotenv}
	writeAll(t, file.Path, "A=1\n")
	if err := os.Chown(file.Path, 1, 1); err != nil {
		t.Fatal(err)
	}
	mustRead(t, file, nil, "1", false)
}

// TestOpenFileStoreKeepsOldSet checks that a file store keeps the old set while a process has
// the file open for writing. If there is no old set, the read must return an error.
func TestOpenFileStoreKeepsOldSet(t *testing.T) {
	dir := t.TempDir() + "/\xff" // a path need not be valid UTF-8
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := File{Path: dir + "/a.env", Format: Dotenv}
	other := Dir{Path: dir + "/other"}
	if _, err := other.Create(); err != nil {
		t.Fatal(err)
	}
	merged := Merged{file, other}
	writeAll(t, file.Path, "A=old\n")
	r := mustRead(t, merged, nil, "old", false)
	f, err := os.OpenFile(file.Path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r = mustRead(t, merged, r, "old", true)
	f.WriteString("A=n")
	writeAll(t, other.Path+"/B", "new")
	r = mustRead(t, merged, r, "old", true)
	if got := string(r.Set["B"].Bytes); got != "new" {
		t.Errorf("B is %q, want new: the file that is open for writing must not delay other stores", got)
	}
	if _, err := file.Read(context.Background(), nil); err == nil || !strings.Contains(err.Error(), file.Path+": a process has the file open for writing") {
		t.Errorf("the first read returned the error %v", err)
	}
	f.WriteString("ew\n")
	f.Close()
	mustRead(t, merged, r, "new", false)
}

// TestFileWithWriteLeaseIsOpenForWriting checks that a file keeps its old value while a process has
// a write lease for the file. A file server such as Samba uses such leases.
func TestFileWithWriteLeaseIsOpenForWriting(t *testing.T) {
	dir := Dir{Path: t.TempDir()}
	writeAll(t, dir.Path+"/A", "old")
	r := mustRead(t, dir, nil, "old", false)
	f, err := os.OpenFile(dir.Path+"/A", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteString("new")
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	r = mustRead(t, dir, r, "old", true)
	if got := r.Unusable[dir.Path+"/A"]; got != ReasonOpen {
		t.Errorf("the reason is %q, want %q", got, ReasonOpen)
	}
	f.Close()
	mustRead(t, dir, r, "new", false)
}

// TestMergedReturnsSameErrorEachTime reads two stores with several duplicate names. Each read must
// return the error for the same name, because the sidecar logs an error again if its text changes.
func TestMergedReturnsSameErrorEachTime(t *testing.T) {
	dir := t.TempDir()
	writeAll(t, dir+"/a.json", `{"A": "x", "B": "x", "C": "x", "D": "x"}`)
	file := File{Path: dir + "/a.json", Format: JSON}
	for range 20 {
		if _, err := (Merged{file, file}).Read(t.Context(), nil); err == nil || !strings.HasPrefix(err.Error(), "A is in two stores") {
			t.Fatalf("got the error %v", err)
		}
	}
}
