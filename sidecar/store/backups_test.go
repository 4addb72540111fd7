package store_test

import (
	"slices"
	"testing"

	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

// TestBackupsFindsCopies checks that Backups returns the secrets and fields whose names look like the names of
// backup files. EditorFiles must return the same files for the secret that they are a copy of.
func TestBackupsFindsCopies(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	for _, name := range []string{"A", "A.bak", "A.orig", "A~", ".A.bak", "B.rej", "BAK", "bak", "aws/key", "aws/key.dpkg-old", "aws/id", "x.bak/id", "C.sync-conflict-20240101-120000-ABCDEFG"} {
		storetest.WriteFile(dir.Path+"/"+name, "1")
	}
	var want []string
	for _, name := range []string{"A.bak", "A.orig", "B.rej", "C.sync-conflict-20240101-120000-ABCDEFG", "aws/key.dpkg-old", "x.bak/id"} {
		want = append(want, dir.Path+"/"+name)
	}
	if got := store.Backups(store.Merged{store.File{Path: dir.Path + "/A"}, dir}); !slices.Equal(got, want) {
		t.Errorf("Backups returned %v; want %v", got, want)
	}
	for name, want := range map[string][]string{
		"A":       {dir.Path + "/A.bak", dir.Path + "/A.orig", dir.Path + "/A~"},
		"aws/key": {dir.Path + "/aws/key.dpkg-old"},
	} {
		if got := dir.EditorFiles(name); !slices.Equal(got, want) {
			t.Errorf("EditorFiles(%s) returned %v; want %v", name, got, want)
		}
	}
}
