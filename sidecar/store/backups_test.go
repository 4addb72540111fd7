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
	for _, name := range []string{"A", "A.bak", "A.orig", "A~", ".A.bak", "B.rej", "BAK", "bak", "aws/key", "aws/key.dpkg-old", "aws/id", "x.bak/id", "C.sync-conflict-20240101-120000-ABCDEFG",
		"D", "D.BAK", "D.bak1", "D.bak.2", "D.save.1", "D.ucf-old", "D-old", "D.new", "D_BACKUP_123", "D_LOCAL_12", "D_BACKUP_KEY", "D_old", "D.news"} {
		storetest.WriteFile(dir.Path+"/"+name, "1")
	}
	var want []string
	for _, name := range []string{"A.bak", "A.orig", "B.rej", "C.sync-conflict-20240101-120000-ABCDEFG",
		"D-old", "D.BAK", "D.bak.2", "D.bak1", "D.new", "D.save.1", "D.ucf-old", "D_BACKUP_123", "D_LOCAL_12", "aws/key.dpkg-old", "x.bak/id"} {
		want = append(want, dir.Path+"/"+name)
	}
	if got := store.Backups(store.Merged{store.File{Path: dir.Path + "/A"}, dir}); !slices.Equal(got, want) {
		t.Errorf("Backups returned %v; want %v", got, want)
	}
	for name, want := range map[string][]string{
		"A": {dir.Path + "/A.bak", dir.Path + "/A.orig", dir.Path + "/A~"},
		"D": {dir.Path + "/D-old", dir.Path + "/D.BAK", dir.Path + "/D.bak.2", dir.Path + "/D.bak1", dir.Path + "/D.new", dir.Path + "/D.save.1",
			dir.Path + "/D.ucf-old", dir.Path + "/D_BACKUP_123", dir.Path + "/D_LOCAL_12"},
		"aws/key": {dir.Path + "/aws/key.dpkg-old"},
	} {
		if got := dir.EditorFiles(name); !slices.Equal(got, want) {
			t.Errorf("EditorFiles(%s) returned %v; want %v", name, got, want)
		}
	}
}
