package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// TestSetReadsFIFO runs set with --file and a FIFO. set must wait until a writer opens the FIFO,
// and then until the writer closes the FIFO. During both waits, Ctrl-C must end set.
func TestSetReadsFIFO(t *testing.T) {
	for _, c := range []struct {
		name  string
		act   func(t *testing.T, term *testenv.Terminal, fifo string)
		code  int
		value string // the value that the secret A must have after set
	}{
		{"Ctrl-C without a writer", func(_ *testing.T, term *testenv.Terminal, _ string) { term.Type("\x03") }, 130, "good"},
		{"Ctrl-C with a writer", func(t *testing.T, term *testenv.Terminal, fifo string) {
			writer := openFIFO(t, fifo)
			t.Cleanup(func() { writer.Close() })
			term.Type("\x03")
		}, 130, "good"},
		{"a value in two parts", func(t *testing.T, _ *testenv.Terminal, fifo string) {
			writer := openFIFO(t, fifo)
			defer writer.Close()
			for _, part := range []string{"to", "ken"} {
				if _, err := writer.WriteString(part); err != nil {
					t.Error(err)
				}
			}
		}, 0, "token"},
		{"an empty value", func(t *testing.T, _ *testenv.Terminal, fifo string) { openFIFO(t, fifo).Close() }, 1, "good"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			fifo, file := dir+"/fifo", dir+"/store/A"
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(dir+"/store", 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte("good"), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(filepath.Join(binDir, "keyhatch-sidecar"), "set", "A", "--file", fifo, "--store", "dir:"+dir+"/store")
			term := testenv.StartOnTerminal(t, cmd)
			waitForOpenFile(t, cmd.Process.Pid, fifo)
			c.act(t, term, fifo)
			if code := term.Wait(); code != c.code {
				t.Errorf("exit code %d, want %d: %q", code, c.code, term.Rest())
			}
			if got, err := os.ReadFile(file); err != nil || string(got) != c.value {
				t.Errorf("the store contains %q, error %v; want %q", got, err, c.value)
			}
		})
	}
}

func openFIFO(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
