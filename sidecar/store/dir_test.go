package store_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

func TestDirReadsSecretsAndBundles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"A": "one\n", "B": "two\n\n", "C": "three\r\n", "INCOMPLETE": "", "NL": "\n", "a.b-c": "four",
		"BIN": "\xff\n", "NUL": "a\x00\n", "BOM": "\ufefftext\n", "aws/key": "k\n", "aws/secret": "s",
		".hidden": storetest.Tripwire, "..data/A": storetest.Tripwire, "A~": storetest.Tripwire, "A.swp": storetest.Tripwire, "#A#": storetest.Tripwire, "4913": storetest.Tripwire, "aws/.x": storetest.Tripwire,
		".swp/x": storetest.Tripwire, "lost+found/#12345": storetest.Tripwire,
	} {
		storetest.WriteFile(filepath.Join(dir, name), text)
	}
	if err := os.Mkdir(filepath.Join(dir, "nothing"), 0o700); err != nil {
		t.Fatal(err)
	}
	got, err := store.Dir{Path: dir}.Read(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := store.Set{
		"A": textValue("one"), "B": textValue("two\n"), "C": textValue("three"), "NL": textValue(""), "a.b-c": textValue("four"),
		"aws": bundleValue(map[schema.SecretName]string{"key": "k", "secret": "s"}),
		"BIN": {Bytes: []byte("\xff\n"), Binary: true}, "NUL": textValue("a\x00\n"), "BOM": textValue("\ufefftext"),
	}
	if diff := cmp.Diff(want, got.Set); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]store.Reason{filepath.Join(dir, "INCOMPLETE"): store.ReasonEmpty}, got.Unusable); diff != "" {
		t.Error(diff)
	}
	if dirs := (store.Dir{Path: dir}).WatchDirs(); slices.Contains(dirs, filepath.Join(dir, "lost+found")) {
		t.Errorf("WatchDirs returned %v; only root can watch lost+found", dirs)
	}
	if got, err := (store.Dir{Path: dir, KeepNewline: true}).Read(context.Background(), nil); err != nil || string(got.Set["A"].Bytes) != "one\n" {
		t.Errorf("with KeepNewline: got %v, error %v; want a newline at the end of A", got, err)
	}
}

// TestDirReadsKubernetesVolume checks that Dir.Read reads a volume with the layout that
// the kubelet creates. The test then replaces the link ..data, as the kubelet does for an
// update, and checks that Dir.Read returns the new secret.
func TestDirReadsKubernetesVolume(t *testing.T) {
	dir := t.TempDir()
	storetest.WriteFile(filepath.Join(dir, "..2026_1/TOKEN"), "old")
	storetest.WriteFile(filepath.Join(dir, "..2026_2/TOKEN"), "new")
	replaceDataLink := func(to string) {
		tmp := filepath.Join(dir, "..data_tmp")
		if err := os.Symlink(to, tmp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	replaceDataLink("..2026_1")
	if err := os.Symlink("..data/TOKEN", filepath.Join(dir, "TOKEN")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"old", "new"} {
		got, err := store.Dir{Path: dir}.Read(context.Background(), nil)
		if err != nil || len(got.Set) != 1 || string(got.Set["TOKEN"].Bytes) != want {
			t.Errorf("got %v, error %v; want only TOKEN with the value %q", got, err, want)
		}
		replaceDataLink("..2026_2")
	}
}

// TestDirErrorsNameFileAndRule checks that an error of Dir.Read contains the path and the rule
// that is violated, and that the error does not contain the content of any file.
func TestDirErrorsNameFileAndRule(t *testing.T) {
	for _, c := range []struct {
		name   string
		create func(dir string)
		wants  []string
	}{
		{"no directory", func(dir string) { os.RemoveAll(dir) }, []string{"/store does not exist"}},
		{"a file instead of a directory", func(dir string) { os.RemoveAll(dir); storetest.WriteFile(dir, storetest.Tripwire) }, []string{"not a directory"}},
		{"only a FIFO", func(dir string) { os.Remove(dir + "/GOOD"); syscall.Mkfifo(dir+"/A", 0o600) }, []string{"/A", "not a regular file"}},
		{"two files that are too large together", func(dir string) {
			storetest.WriteFile(dir+"/A", storetest.Tripwire+strings.Repeat("x", schema.MaxPush/2))
			storetest.WriteFile(dir+"/b/x", storetest.Tripwire+strings.Repeat("x", schema.MaxPush/2))
		}, []string{"the maximum size of a push is 1048576 bytes", "/A (524296 bytes)", "/b/x (524296 bytes)"}},
	} {
		dir := filepath.Join(t.TempDir(), "store")
		storetest.WriteFile(dir+"/GOOD", storetest.Tripwire)
		c.create(dir)
		_, err := store.Dir{Path: dir}.Read(context.Background(), nil)
		if err == nil {
			t.Errorf("a store with %s: Read returned no error", c.name)
			continue
		}
		for _, want := range c.wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("a store with %s: the error %q does not contain %q", c.name, err.Error(), want)
			}
		}
		if strings.Contains(err.Error(), storetest.Tripwire) {
			t.Errorf("a store with %s: the error contains content of a file", c.name)
		}
	}
}

// TestDirReturnsUnusablePaths checks that Dir.Read reads the other secrets if it cannot use a
// path, and that it returns the path and the reason.
func TestDirReturnsUnusablePaths(t *testing.T) {
	for _, c := range []struct {
		name       string
		create     func(dir string)
		path, want string
	}{
		{"a bad name", func(dir string) { storetest.WriteFile(dir+"/bad name", storetest.Tripwire) }, "/bad name", "does not match"},
		{"a long name", func(dir string) { storetest.WriteFile(dir+"/"+strings.Repeat("x", 129), storetest.Tripwire) }, "/" + strings.Repeat("x", 129), "does not match"},
		{"a bad bundle", func(dir string) { storetest.WriteFile(dir+"/a b/x", storetest.Tripwire) }, "/a b", "does not match"},
		{"a directory in a bundle", func(dir string) { storetest.WriteFile(dir+"/aws/deep/x", storetest.Tripwire) }, "/aws/deep", "must contain only files"},
		{"a binary field", func(dir string) { storetest.WriteFile(dir+"/aws/x", storetest.Tripwire+"\xff") }, "/aws/x", "must be valid UTF-8"},
		{"a dangling link", func(dir string) { os.Symlink("nowhere", dir+"/A") }, "/A", "target of the symbolic link does not exist"},
		{"a link in a circle", func(dir string) { os.Symlink("A", dir+"/A") }, "/A", "too many"},
		{"a FIFO", func(dir string) { syscall.Mkfifo(dir+"/A", 0o600) }, "/A", "not a regular file or a directory"},
		{"a link to a file of procfs", func(dir string) { os.Symlink("/proc/uptime", dir+"/A") }, "/A", "different from its size"},
		{"a link to a file of sysfs", func(dir string) { os.Symlink("/sys/kernel/uevent_seqnum", dir+"/A") }, "/A", "different from its size"},
		{"a device", func(dir string) { os.Symlink("/dev/zero", dir+"/A") }, "/A", "not a regular file or a directory"},
		{"a file that is too large", func(dir string) {
			storetest.WriteFile(dir+"/A", storetest.Tripwire+strings.Repeat("x", schema.MaxPush))
		}, "/A", "the maximum size of a push is 1048576 bytes"},
	} {
		dir := filepath.Join(t.TempDir(), "store")
		storetest.WriteFile(dir+"/GOOD", "value")
		c.create(dir)
		got, err := store.Dir{Path: dir}.Read(context.Background(), nil)
		if err != nil {
			t.Errorf("a store with %s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(store.Set{"GOOD": textValue("value")}, got.Set); diff != "" {
			t.Errorf("a store with %s: %s", c.name, diff)
		}
		if reason := string(got.Unusable[dir+c.path]); len(got.Unusable) != 1 || !strings.Contains(reason, c.want) {
			t.Errorf("a store with %s: the unusable paths are %q, want %s and %q", c.name, got.Unusable, dir+c.path, c.want)
		}
	}

	// Dir.Read must ignore a field with a bad name, and use the other fields of the bundle.
	dir := t.TempDir()
	storetest.WriteFile(dir+"/aws/key", "value")
	storetest.WriteFile(dir+"/aws/bad name", storetest.Tripwire)
	got, err := store.Dir{Path: dir}.Read(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(store.Set{"aws": bundleValue(map[schema.SecretName]string{"key": "value"})}, got.Set); diff != "" || got.Unusable[dir+"/aws/bad name"] != store.ReasonName {
		t.Errorf("the unusable paths are %q; %s", got.Unusable, diff)
	}
}
