package manifest

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// TestDeclarationCacheReadsChangedFiles checks that a DeclarationCache does not read a file again
// that has not changed for an hour. It also checks that the DeclarationCache notices a change of
// the content, a change of the mode, and a removed file.
func TestDeclarationCacheReadsChangedFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "api.yaml")
	write := func(manifest string) time.Time {
		t.Helper()
		text, err := Declaration{Name: "api", Path: "/srv/api", Manifest: manifest}.Encode()
		if err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return time.Now()
	}
	written := write("first\n")
	synctest.Test(t, func(t *testing.T) {
		var c DeclarationCache
		read := func() (Declaration, *byte) {
			t.Helper()
			declared, invalid, err := c.Read(dir)
			if err != nil || len(invalid) > 0 {
				t.Fatalf("invalid: %v, error: %v", invalid, err)
			}
			d := declared["api"]
			return d, unsafe.StringData(d.Manifest) // the same address in two results means that the file was not read again
		}
		// The file has just been written. Another write within the same tick of the kernel's
		// clock would not change the times of the file, so Read must not use the cache yet.
		time.Sleep(time.Until(written))
		_, first := read()
		if d, again := read(); d.Manifest != "first\n" || again == first {
			t.Errorf("a new file was not read again; the declaration is %+v", d)
		}
		time.Sleep(time.Hour)
		_, first = read()
		if d, again := read(); d.Manifest != "first\n" || d.Path != "/srv/api" || again != first {
			t.Errorf("an unchanged file was read again; the declaration is %+v", d)
		}
		write("other\n") // has the same size as "first\n"
		if d, _ := read(); d.Manifest != "other\n" {
			t.Errorf("after a change, the manifest is %q", d.Manifest)
		}
		if err := os.Chmod(path, 0o622); err != nil {
			t.Fatal(err)
		}
		if declared, invalid, err := c.Read(dir); err != nil || len(declared) > 0 || invalid["api"] == nil {
			t.Errorf("other users can write to the file, but the results are %v, %v, %v", declared, invalid, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if declared, invalid, err := c.Read(dir); err != nil || len(declared)+len(invalid) > 0 || len(c.files) > 0 {
			t.Errorf("after the file was removed, the results are %v, %v, %v", declared, invalid, err)
		}
	})
}
