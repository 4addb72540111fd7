package cmd_test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSignalCancelsWaitingEdit sends a signal to set or rm while the command waits for another
// edit. The command must end, must not print an error, and must not change the store.
func TestSignalCancelsWaitingEdit(t *testing.T) {
	for _, command := range []string{"set", "rm"} {
		for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
			t.Run(command+" "+sig.String(), func(t *testing.T) {
				t.Parallel()
				store := t.TempDir()
				file := filepath.Join(store, "A")
				if err := os.WriteFile(file, []byte("good"), 0o600); err != nil {
					t.Fatal(err)
				}
				lock, err := os.Open(store)
				if err != nil {
					t.Fatal(err)
				}
				defer lock.Close()
				if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
					t.Fatal(err)
				}
				c := exec.Command(filepath.Join(binDir, "keyhatch-sidecar"), command, "A", "--store", "dir:"+store)
				c.Stdin = strings.NewReader("new")
				stderr, err := c.StderrPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Process.Kill(); c.Wait() })
				output := bufio.NewReader(stderr)
				if line, err := output.ReadString('\n'); err != nil || line != "waiting for another edit of the store\n" {
					t.Fatalf("the command printed %q, error %v", line, err)
				}
				c.Process.Signal(sig)
				rest, err := io.ReadAll(output)
				if err != nil || len(rest) > 0 {
					t.Errorf("the command printed %q, error %v", rest, err)
				}
				c.Wait()
				status := c.ProcessState.Sys().(syscall.WaitStatus)
				if want := 128 + int(sig); status.ExitStatus() != want && status.Signal() != sig {
					t.Errorf("the exit code is %d, want %d", status.ExitStatus(), want)
				}
				lock.Close()
				if got, err := os.ReadFile(file); err != nil || string(got) != "good" {
					t.Errorf("the file contains %q, error %v", got, err)
				}
			})
		}
	}
}

// TestSignalAfterEditDoesNotChangeExitCode sends a signal to set after set has changed the store.
// The exit code must be 0, because the signal did not cancel the edit.
func TestSignalAfterEditDoesNotChangeExitCode(t *testing.T) {
	store := t.TempDir()
	// After the edit, set checks the store. This check waits for files that are open for writing,
	// so set is still running when the test sends the signal.
	open, err := os.Create(filepath.Join(store, "B"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := open.WriteString("a part"); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(filepath.Join(binDir, "keyhatch-sidecar"), "set", "A", "--store", "dir:"+store)
	c.Stdin = strings.NewReader("new")
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	output := bufio.NewReader(stderr)
	if line, err := output.ReadString('\n'); err != nil || line != "A: 3 bytes, new\n" {
		t.Fatalf("the command printed %q, error %v", line, err)
	}
	c.Process.Signal(syscall.SIGINT)
	rest, err := io.ReadAll(output)
	if err != nil || !strings.Contains(string(rest), "interrupted") {
		t.Errorf("the command printed %q, error %v", rest, err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}
