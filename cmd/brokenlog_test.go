package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestDaemonsOutliveReaders starts both daemons with a log that nobody reads any
// more, when both have something to say, and sees them work.
func TestDaemonsOutliveReaders(t *testing.T) {
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("declared/broken.yaml", "nonsense")
	write("api/.keyhatch/manifest.yaml", "schema_version: 1\nproject: api\nsecrets: {A: }\n")
	start := func(name string, args ...string) {
		t.Helper()
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		reader.Close()
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Stdout, cmd.Stderr = writer, writer
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		writer.Close()
		t.Cleanup(func() {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			cmd.Wait()
		})
	}
	until := func(name string, args ...string) {
		t.Helper()
		for end := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			out, err := exec.Command(filepath.Join(bin, name), args...).CombinedOutput()
			if err == nil {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %v\n%s", name, err, out)
			}
		}
	}
	admin := dir + "/run/admin/admin.sock"
	start("keyhatchd", "--runtime-dir", dir+"/run", "--projects-dir", dir+"/declared", "--audit", "stdout")
	start("keyhatch-sidecar", "run", "--store", "dir:"+dir+"/later", "--socket", admin)
	until("keyhatchctl", "--socket", admin, "register", dir+"/api")
	write("later/A", "v")
	until("keyhatch", "--socket", dir+"/run/projects/api/broker.sock", "get", "A")
	until("keyhatchctl", "--socket", admin, "status")
}
