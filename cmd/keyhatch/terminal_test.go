package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TestRunWatchInInteractiveShell uses run --watch in an interactive shell: what the keys
// send reaches the command, it can be stopped and taken up
// again, and afterwards the terminal is the shell's.
func TestRunWatchInInteractiveShell(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		if os.Getenv("KEYHATCH_TEST_ALL") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	socket := serveProject(t, "schema_version: 1\nproject: api\nsecrets: {A: }\n", schema.PushRequest{
		Secrets: map[schema.SecretName]schema.Value{"A": {Text: "TRIPWIRE"}},
	})
	term := newTerminal(t, socket)
	term.typeText("keyhatch run --watch -- sh -c 'echo $A begun; cat; echo ended'\n")
	term.expect("TRIPWIRE begun\r\n")
	term.typeText("one\n")
	term.expect("one\r\none\r\n") // the echo, and cat
	term.typeText("\x1a")
	term.expect("Stopped")
	term.typeUntil("echo she\"\"ll\n", "shell\r\n")
	term.typeUntil("set -b; bg\n", "Stopped") // it reads, and so is stopped again, which -b says at once
	term.typeUntil("echo bash is ba\"\"ck\n", "back\r\n")
	term.typeText("fg\n")
	term.typeUntil("two\n", "two\r\ntwo\r\n")
	term.typeText("\x03")
	term.expect("^C")
	term.expect("$ ")
	term.typeText("echo code=$?\n")
	term.expect("code=130")
	// Whatever comes next in the same script can read.
	term.typeText("sh -c 'keyhatch run --watch -- true; echo ready; read line; echo read:$line'\n")
	term.expect("\r\nready")
	term.typeText("three\n")
	term.expect("read:three")
}

// TestRunWatchAsSessionLeader: nothing runs around the command, as in docker run
// -it, so what stops it must not stop it for good.
func TestRunWatchAsSessionLeader(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		if os.Getenv("KEYHATCH_TEST_ALL") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	term := newTerminal(t, serveProject(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}}))
	term.typeText("exec keyhatch run --watch -- sh -c 'echo beg\"\"un; while read line; do echo read:$line; done'\n")
	term.expect("begun\r\n")
	term.typeText("\x1a")
	term.expect("^Z")
	term.typeUntil("one\n", "read:one\r\n")
}

// A terminal is the far end of an interactive shell's.
type terminal struct {
	t      *testing.T
	ptmx   *os.File
	unread []byte // not seen yet
}

func newTerminal(t *testing.T, socket string) *terminal {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(ptmx.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	// Fd made it blocking, and a blocking one has no deadlines.
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	pts, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pts.Close()
	c := exec.Command("bash", "--norc", "--noprofile", "-i")
	c.Env = append(os.Environ(), "KEYHATCH_SOCKET="+socket, "PS1=$ ", "TERM=dumb", "GORACE=atexit_sleep_ms=0")
	c.Dir = t.TempDir()
	c.Stdin, c.Stdout, c.Stderr = pts, pts, pts
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ptmx.Close() // hangs up on all that is left
		c.Process.Kill()
		c.Wait()
	})
	term := &terminal{t: t, ptmx: ptmx}
	term.expect("$ ")
	return term
}

func (term *terminal) typeText(text string) {
	term.t.Helper()
	if _, err := term.ptmx.WriteString(text); err != nil {
		term.t.Fatal(err)
	}
}

// typeUntil types a line again and again until it sees text. While the terminal is
// handed over what is typed may be lost: its settings change.
func (term *terminal) typeUntil(line, text string) {
	term.t.Helper()
	for range 50 {
		term.typeText(line)
		if term.waitFor(text, 300*time.Millisecond) == nil {
			return
		}
	}
	term.t.Fatalf("typing %q, waiting for %q: there is %q", line, text, term.unread)
}

// expect waits for text, and forgets it and what came before.
func (term *terminal) expect(text string) {
	term.t.Helper()
	if err := term.waitFor(text, 15*time.Second); err != nil {
		term.t.Fatalf("waiting for %q: %v; there is %q", text, err, term.unread)
	}
}

func (term *terminal) waitFor(text string, timeout time.Duration) error {
	term.ptmx.SetReadDeadline(time.Now().Add(timeout))
	for {
		if i := bytes.Index(term.unread, []byte(text)); i >= 0 {
			term.unread = term.unread[i+len(text):]
			return nil
		}
		b := make([]byte, 4096)
		n, err := term.ptmx.Read(b)
		term.unread = append(term.unread, b[:n]...)
		if err != nil {
			return err
		}
	}
}
