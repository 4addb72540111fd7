package cmd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"golang.org/x/sys/unix"
)

// TestSameUIDCannotReadCommandThatHoldsSecret starts commands that read a secret from standard input.
// After a command has read a part of the secret, a process of the same uid must not be able to read the
// memory of the command. To check the test itself, the test also reads the memory of cat.
func TestSameUIDCannotReadCommandThatHoldsSecret(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "running a command as another uid requires root")
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, 65533, 65533); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.Command("cp", binDir+"/keyhatchctl", binDir+"/keyhatch", binDir+"/keyhatch-sidecar", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	asUser := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(name, args...)
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
		return c
	}
	for _, args := range [][]string{
		{"cat"},
		{filepath.Join(dir, "keyhatchctl"), "push", "-"},
		{filepath.Join(dir, "keyhatch"), "credential", "docker", "store"},
		{filepath.Join(dir, "keyhatch-sidecar"), "set", "A", "--store", "dir:" + dir},
	} {
		c := asUser(args[0], args[1:]...)
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		defer write.Close()
		c.Stdin = read
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { c.Process.Kill(); c.Wait() }()
		fmt.Fprint(write, "{")
		for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(time.Millisecond) {
			if n, err := unix.IoctlGetInt(int(read.Fd()), unix.TIOCINQ); err == nil && n == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v did not read its standard input", args)
			}
		}
		err = asUser("sh", "-c", fmt.Sprintf("exec </proc/%d/mem", c.Process.Pid)).Run()
		if isReadable := err == nil; isReadable != (args[0] == "cat") {
			t.Errorf("%v: a process of the same uid can read the memory: %v", args, isReadable)
		}
	}
}

// TestSameUIDCannotReadProcessOfUnreadableProgram checks what `make install` relies on: if a program has
// mode 0711, no other process of its uid can read the memory of the process that executes the program, even
// if this process does nothing to prevent it.
func TestSameUIDCannotReadProcessOfUnreadableProgram(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "running a command as another uid requires root")
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cat, err := exec.LookPath("cat")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	asUser := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	for _, mode := range []os.FileMode{0o755, 0o711} {
		program := filepath.Join(dir, "cat")
		if output, err := exec.Command("cp", cat, program).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		if err := os.Chmod(program, mode); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(program)
		c.SysProcAttr = asUser
		stdin, err := c.StdinPipe()
		if err == nil {
			err = c.Start() // returns after execve(2), so the process already runs the program
		}
		if err != nil {
			t.Fatal(err)
		}
		attacker := exec.Command("sh", "-c", fmt.Sprintf("exec </proc/%d/mem", c.Process.Pid))
		attacker.SysProcAttr = asUser
		if isReadable := attacker.Run() == nil; isReadable != (mode == 0o755) {
			t.Errorf("mode %o: a process of the same uid can read the memory: %v", mode, isReadable)
		}
		stdin.Close()
		c.Wait()
		os.Remove(program)
	}
}
