package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestDaemonsSurviveBrokenLogPipe starts keyhatchd and keyhatch-sidecar with a broken pipe as
// standard output and standard error, and makes both daemons write log lines. After that, both
// daemons must still work.
func TestDaemonsSurviveBrokenLogPipe(t *testing.T) {
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
		cmd := exec.Command(filepath.Join(binDir, name), args...)
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
	waitUntilSucceeds := func(name string, args ...string) {
		t.Helper()
		for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			out, err := exec.Command(filepath.Join(binDir, name), args...).CombinedOutput()
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v\n%s", name, err, out)
			}
		}
	}
	admin := dir + "/run/admin/admin.sock"
	start("keyhatchd", "--runtime-dir", dir+"/run", "--projects-dir", dir+"/declared", "--audit", "stdout")
	start("keyhatch-sidecar", "run", "--store", "dir:"+dir+"/later", "--socket", admin)
	waitUntilSucceeds("keyhatchctl", "--socket", admin, "register", dir+"/api")
	write("later/A", "v")
	waitUntilSucceeds("keyhatch", "--socket", dir+"/run/projects/api/broker.sock", "get", "A")
	waitUntilSucceeds("keyhatchctl", "--socket", admin, "status")
}
