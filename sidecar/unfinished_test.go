package sidecar

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
	"golang.org/x/sys/unix"
)

// registerProject registers a project that may fetch the given secrets.
func (h *testHost) registerProject(names ...string) *client.Project {
	h.t.Helper()
	manifest := "schema_version: 1\nproject: api\nsecrets:\n"
	for _, name := range names {
		manifest += "  " + name + ":\n"
	}
	admin := h.dialAdmin()
	defer admin.Close()
	if _, err := admin.Register(context.Background(), schema.RegisterRequest{Name: "api", ProjectPath: "/nowhere/api", Manifest: &manifest}); err != nil {
		h.t.Fatal(err)
	}
	return client.NewProject(h.dir + "/run/projects/api/broker.sock")
}

// waitForValues waits until the project can fetch exactly these secrets.
func (h *testHost) waitForValues(project *client.Project, want map[schema.SecretName]string) {
	h.t.Helper()
	h.waitUntil("the project can fetch exactly the expected secrets", func() bool {
		got, err := project.GetMany(context.Background(), nil, 0)
		if err != nil || got.Generation == 0 || len(got.Secrets) != len(want) {
			return false
		}
		for name, value := range got.Secrets {
			if text, ok := want[name]; !ok || value.Value == nil || *value.Value != text {
				return false
			}
		}
		return true
	})
}

// setSecret writes a secret by renaming a complete file.
func (h *testHost) setSecret(name, text string) {
	h.t.Helper()
	if err := (store.Dir{Path: h.store}).Set(context.Background(), name, []byte(text)); err != nil {
		h.t.Fatal(err)
	}
}

// openForWriting truncates a file of the store and writes a part of a value. The file stays
// open until the test closes it.
func (h *testHost) openForWriting(name, part string) *os.File {
	h.t.Helper()
	f, err := os.OpenFile(h.store+"/"+name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(part)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { f.Close() })
	return f
}

// health returns the texts of the problems that CheckHealth finds with the host's store, or "".
func (h *testHost) health() string { return healthOf(h, store.Dir{Path: h.store}) }

// TestFileThatIsBeingWrittenKeepsOldValue keeps a file of the store open for writing. It checks
// that the broker keeps the old value of this secret, and that changes of other secrets are
// pushed.
func TestFileThatIsBeingWrittenKeepsOldValue(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire+"old")
	h.writeSecret("B", tripwire+"old")
	project := h.registerProject("A", "B", "NEW")
	r := h.runSidecar(nil)
	h.waitForValues(project, map[schema.SecretName]string{"A": tripwire + "old", "B": tripwire + "old"})

	a, created := h.openForWriting("A", tripwire), h.openForWriting("NEW", tripwire)
	h.setSecret("B", tripwire+"new")
	h.waitForValues(project, map[schema.SecretName]string{"A": tripwire + "old", "B": tripwire + "new"})
	r.waitForLog(h, h.store+"/A")
	r.waitForLog(h, h.store+"/NEW")
	if got := h.health(); !strings.Contains(got, h.store+"/A") || !strings.Contains(got, "open for writing") {
		t.Errorf("CheckHealth returned %q", got)
	}
	a.WriteString("complete") // the last file event for A, because closing a file causes no event
	h.setSecret("B", tripwire+"newer")
	h.waitForValues(project, map[schema.SecretName]string{"A": tripwire + "old", "B": tripwire + "newer"})
	a.Close()
	created.Close()
	h.waitForValues(project, map[schema.SecretName]string{"A": tripwire + "complete", "B": tripwire + "newer", "NEW": tripwire})
	r.waitForLog(h, "the sidecar uses the file again")
	if n := strings.Count(r.log.String(), "path="+h.store+"/A"); n != 2 {
		t.Errorf("the sidecar logged the path of A %d times, want once when it is not complete and once when it is", n)
	}
	h.waitUntil("CheckHealth finds no problem", func() bool { return h.health() == "" })
}

// TestEmptyFileKeepsOldValue truncates a file of the store. It checks that the broker keeps the old
// value until the file has content again, until set stores an empty value, or until the file is
// removed.
func TestEmptyFileKeepsOldValue(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	h.writeSecret("aws/key", tripwire)
	h.writeSecret("aws/secret", tripwire)
	project := h.registerProject("A", "B", "C")
	r := h.runSidecar(nil)
	h.waitForNames("A", "aws")
	h.openForWriting("A", "").Close()
	h.openForWriting("aws/key", "").Close()
	h.openForWriting("C", "").Close()
	h.setSecret("B", tripwire)
	h.waitForValues(project, map[schema.SecretName]string{"A": tripwire, "B": tripwire})
	h.waitForNames("A", "B", "aws")
	r.waitForLog(h, h.store+"/A")
	if got := h.health(); !strings.Contains(got, h.store+"/A") || !strings.Contains(got, "empty") {
		t.Errorf("CheckHealth returned %q", got)
	}
	h.setSecret("A", "") // writes a newline, which the sidecar pushes as an empty value
	h.setSecret("C", "")
	h.waitForValues(project, map[schema.SecretName]string{"A": "", "B": tripwire, "C": ""})
	h.openForWriting("B", "").Close()
	h.setSecret("C", tripwire)
	h.waitForValues(project, map[schema.SecretName]string{"A": "", "B": tripwire, "C": tripwire})
	os.Remove(h.store + "/B")
	os.RemoveAll(h.store + "/aws")
	h.waitForNames("A", "C")
}

// TestSidecarStartsWithUnfinishedFiles starts a sidecar while one file is empty and another
// file is open for writing. It checks that the sidecar pushes the other secrets.
func TestSidecarStartsWithUnfinishedFiles(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("GOOD", tripwire)
	h.writeSecret("EMPTY", "")
	half := h.openForWriting("HALF", tripwire)
	h.runSidecar(nil)
	h.waitForNames("GOOD")
	half.Close()
	h.waitForNames("GOOD", "HALF")
}

// TestOpenFileStoreKeepsAllSecrets writes the file of a file store slowly. It checks that the
// broker keeps the complete old set until the file is complete.
func TestOpenFileStoreKeepsAllSecrets(t *testing.T) {
	for format, texts := range map[store.Format][3]string{
		store.Dotenv: {"A=old\nB=old\n", "A=new\nB=n", "ew\nC=new\n"},
		store.JSON:   {`{"A": "old", "B": "old"}`, `{"A": "new", "B": `, `"new", "C": "new"}`},
		store.YAML:   {"A: old\nB: old\n", "A: new\nB: n", "ew\nC: new\n"},
	} {
		h := newTestHost(t)
		h.writeSecret("file", texts[0])
		storetest.WriteFile(h.dir+"/other/D", "old")
		project := h.registerProject("A", "B", "C", "D")
		h.runSidecar(func(c *Config) {
			c.Store = store.Merged{store.File{Path: h.store + "/file", Format: format}, store.Dir{Path: h.dir + "/other"}}
		})
		h.waitForValues(project, map[schema.SecretName]string{"A": "old", "B": "old", "D": "old"})
		f := h.openForWriting("file", texts[1])
		storetest.WriteFile(h.dir+"/other/D", "new")
		h.waitForValues(project, map[schema.SecretName]string{"A": "old", "B": "old", "D": "new"})
		f.WriteString(texts[2])
		f.Close()
		h.waitForValues(project, map[schema.SecretName]string{"A": "new", "B": "new", "C": "new", "D": "new"})
	}
}

// TestOpenFileStoreIsReported opens the file of a file store for writing. It checks that the warning
// explains that the broker keeps the old values of all secrets of the file, and that the hint contains
// a command that finds the process.
func TestOpenFileStoreIsReported(t *testing.T) {
	h := newTestHost(t)
	path := h.dir + "/conf/a.env"
	storetest.WriteFile(path, "A="+tripwire)
	r := h.runSidecar(func(c *Config) { c.Store = store.File{Path: path, Format: store.Dotenv} })
	h.waitForNames("A")
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteString("A=" + tripwire + "new")
	r.waitForLog(h, "the broker keeps the old values of all secrets of this file")
	r.waitForLog(h, "to find the process, run fuser -v '"+path+"'")
}

// TestStoreIsReadableOnlyAfterCompleteRead lets a program write to a store that had an error. It
// checks that the sidecar does not log the end of the error while the file is open, because the
// next read usually finds the same error.
func TestStoreIsReadableOnlyAfterCompleteRead(t *testing.T) {
	path := t.TempDir() + "/a.env"
	storetest.WriteFile(path, "A="+tripwire)
	log := &logBuffer{}
	read := readInProcess(store.File{Path: path, Format: store.Dotenv})
	reader := newStoreReader(nil, read, nil, slog.New(slog.NewTextHandler(log, nil)))
	defer reader.close()
	accept := func(wantError bool) {
		t.Helper()
		reading, err := read(t.Context(), reader.lastGood)
		if (err != nil) != wantError {
			t.Fatalf("the read returned the error %v", err)
		}
		reader.acceptResult(t.Context(), readResult{reading: reading, err: err})
	}
	accept(false)
	for range 3 {
		storetest.WriteFile(path, "bad "+tripwire+" bad "+tripwire)
		accept(true)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		accept(false)
		if !reader.lastGood.WaitsForFile() {
			t.Fatal("the file is not open for writing")
		}
		f.Close()
	}
	if text := log.String(); strings.Contains(text, "readable again") || strings.Count(text, "level=ERROR") != 1 {
		t.Errorf("the sidecar logged the end of an error that has not ended, or the error again:\n%s", text)
	}
	storetest.WriteFile(path, "A="+tripwire+strings.Repeat("x", 100))
	accept(false)
	if text := log.String(); strings.Count(text, "the store is readable again") != 1 {
		t.Errorf("the sidecar did not log the end of the error:\n%s", text)
	}
}

// TestLeftoversOfKilledEditAreRemoved creates temporary files of edits twice: before the sidecar
// starts, and while the test has locked the store, as a running edit does. The sidecar must remove the
// first files immediately, and the second files only after the test has unlocked the store.
func TestLeftoversOfKilledEditAreRemoved(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	h.writeSecret(".keyhatch-edit-1/id", tripwire)
	r := h.runSidecar(func(c *Config) { c.Poll = 10 * time.Millisecond })
	r.waitForLog(h, "removed a temporary file of an edit that was killed")
	edit, err := os.Open(h.store)
	if err == nil {
		err = unix.Flock(int(edit.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.writeSecret(".keyhatch-edit-2/id", tripwire)
	h.writeSecret("B", tripwire)
	h.waitForNames("A", "B")
	if _, err := os.Stat(h.store + "/.keyhatch-edit-2/id"); err != nil {
		t.Error(err)
	}
	edit.Close()
	h.waitUntil("the sidecar has removed the temporary files", func() bool {
		left, _ := filepath.Glob(h.store + "/.k*")
		return len(left) == 0
	})
}
