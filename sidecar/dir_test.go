package sidecar

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/keyhatch/keyhatch/schema"
)

// tripwire is in the content of every file of a bad store.
const tripwire = "TRIPWIRE"

// write writes a file, and panics where it cannot: tables of stores use it too.
func write(path, text string) {
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		panic(err)
	}
}

func TestDirRead(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"A": "one\n", "B": "two\n\n", "C": "three\r\n", "EMPTY": "", "NL": "\n", "a.b-c": "four",
		"BIN": "\xff\x00\n", "aws/key": "k\n", "aws/secret": "s",
		".hidden": tripwire, "..data/A": tripwire, "A~": tripwire, "A.swp": tripwire, "#A#": tripwire, "4913": tripwire, "aws/.x": tripwire,
		".swp/x": tripwire,
	} {
		write(filepath.Join(dir, name), text)
	}
	if err := os.Mkdir(filepath.Join(dir, "nothing"), 0o700); err != nil {
		t.Fatal(err)
	}
	got, err := Dir{Path: dir}.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := schema.PushRequest{
		Secrets: map[schema.SecretName]schema.Value{
			"A": {Text: "one"}, "B": {Text: "two\n"}, "C": {Text: "three"}, "EMPTY": {}, "NL": {}, "a.b-c": {Text: "four"},
			"aws": {Fields: map[schema.SecretName]string{"key": "k", "secret": "s"}},
		},
		SecretsB64: map[schema.SecretName][]byte{"BIN": []byte("\xff\x00")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got, err := (Dir{Path: dir, KeepNewline: true}).Read(context.Background()); err != nil || got.Secrets["A"].Text != "one\n" {
		t.Errorf("keeping newlines: %v", err)
	}
}

// TestDirKubernetes reads a volume as the kubelet lays it out, and again after
// its link was swapped.
func TestDirKubernetes(t *testing.T) {
	dir := t.TempDir()
	write(filepath.Join(dir, "..2026_1/TOKEN"), "old")
	write(filepath.Join(dir, "..2026_2/TOKEN"), "new")
	swap := func(to string) {
		tmp := filepath.Join(dir, "..data_tmp")
		if err := os.Symlink(to, tmp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	swap("..2026_1")
	if err := os.Symlink("..data/TOKEN", filepath.Join(dir, "TOKEN")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"old", "new"} {
		got, err := Dir{Path: dir}.Read(context.Background())
		if err != nil || len(got.Secrets) != 1 || got.Secrets["TOKEN"].Text != want {
			t.Errorf("got %v, %v", slices.Collect(maps.Keys(got.Secrets)), err)
		}
		swap("..2026_2")
	}
}

// TestDirBad names the file and the rule, and nothing of any content.
func TestDirBad(t *testing.T) {
	for _, c := range []struct {
		name  string
		make  func(dir string)
		wants []string
	}{
		{"no directory", func(dir string) { os.RemoveAll(dir) }, []string{"no such file"}},
		{"a file for a directory", func(dir string) { os.RemoveAll(dir); write(dir, tripwire) }, []string{"not a directory"}},
		{"a bad name", func(dir string) { write(dir+"/bad name", tripwire) }, []string{"bad name", "does not match"}},
		{"a long name", func(dir string) { write(dir+"/"+strings.Repeat("x", 129), tripwire) }, []string{"does not match"}},
		{"a bad field", func(dir string) { write(dir+"/aws/bad name", tripwire) }, []string{"aws/bad name", "does not match"}},
		{"a bad bundle", func(dir string) { write(dir+"/a b/x", tripwire) }, []string{"a b", "does not match"}},
		{"a deep bundle", func(dir string) { write(dir+"/aws/deep/x", tripwire) }, []string{"aws/deep", "files only"}},
		{"a binary field", func(dir string) { write(dir+"/aws/x", tripwire+"\xff") }, []string{"aws/x", "must be UTF-8"}},
		{"a dangling link", func(dir string) { os.Symlink("nowhere", dir+"/A") }, []string{"/A", "leads nowhere"}},
		{"a link in a circle", func(dir string) { os.Symlink("A", dir+"/A") }, []string{"/A", "too many"}},
		{"a FIFO", func(dir string) { syscall.Mkfifo(dir+"/A", 0o600) }, []string{"/A", "neither a file nor a directory"}},
		{"a device", func(dir string) { os.Symlink("/dev/zero", dir+"/A") }, []string{"/A", "neither a file nor a directory"}},
		{"too large", func(dir string) { write(dir+"/A", tripwire+strings.Repeat("x", schema.MaxPush)) }, []string{"1048576"}},
		{"too large together", func(dir string) {
			write(dir+"/A", tripwire+strings.Repeat("x", schema.MaxPush/2))
			write(dir+"/b/x", tripwire+strings.Repeat("x", schema.MaxPush/2))
		}, []string{"1048576"}},
	} {
		dir := filepath.Join(t.TempDir(), "store")
		write(dir+"/GOOD", tripwire)
		c.make(dir)
		_, err := Dir{Path: dir}.Read(context.Background())
		if err == nil {
			t.Errorf("%s: taken", c.name)
			continue
		}
		for _, want := range c.wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v does not say %q", c.name, err, want)
			}
		}
		if strings.Contains(err.Error(), tripwire) {
			t.Errorf("%s: the error holds content", c.name)
		}
	}
}

func TestFits(t *testing.T) {
	escaped := schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{"A": {Text: strings.Repeat("\x01", schema.MaxPush/3)}}}
	if err := fits(escaped); err == nil || !strings.Contains(err.Error(), "on the wire") {
		t.Errorf("a set that is too large once escaped: %v", err)
	}
	if err := fits(schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}}); err != nil {
		t.Error(err)
	}
}

func TestEdit(t *testing.T) {
	dir := Dir{Path: filepath.Join(t.TempDir(), "new")}
	for name, value := range map[string]string{"A": "1", "aws/key": "2", "aws/secret": "3", "B": "4"} {
		if err := dir.Set(name, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]os.FileMode{"": 0o700 | os.ModeDir, "aws": 0o700 | os.ModeDir, "A": 0o600, "aws/key": 0o600} {
		if info, err := os.Stat(filepath.Join(dir.Path, path)); err != nil || info.Mode() != want {
			t.Errorf("%q: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	if err := dir.Set("A", []byte("new")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"aws", "B"} {
		if err := dir.Remove(name); err != nil {
			t.Error(err)
		}
	}
	if names, err := dir.List(); err != nil || !slices.Equal(names, []string{"A"}) {
		t.Errorf("the store lists %v, %v", names, err)
	}
	if entries, err := os.ReadDir(dir.Path); err != nil || len(entries) != 1 {
		t.Errorf("something is left behind beside A: %v, %v", entries, err)
	}
	for _, name := range []string{"", "..", ".x", "a/b/c", "a/", "/a", "a/..", "a b", "x~"} {
		if err := dir.Set(name, nil); err == nil {
			t.Errorf("Set takes the name %q", name)
		}
		if err := dir.Remove(name); err == nil {
			t.Errorf("Remove takes the name %q", name)
		}
	}
}
