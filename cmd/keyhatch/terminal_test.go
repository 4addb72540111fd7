package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TestRunWatchInInteractiveShell uses keyhatch run --watch in an interactive shell. The
// command must get the typed text and the signals of keys such as Ctrl-C. The user must be
// able to stop and continue the command. After the command ends, the shell must control the
// terminal again.
func TestRunWatchInInteractiveShell(t *testing.T) {
	testenv.RequireTool(t, "bash")
	socket := serveProject(t, "schema_version: 1\nproject: api\nsecrets: {A: }\n", schema.PushRequest{
		Secrets: map[schema.SecretName]schema.Value{"A": {Text: "TRIPWIRE"}},
	})
	term := newTerminal(t, socket)
	term.typeText("keyhatch run --watch -- sh -c 'echo $A begun; cat; echo ended'\n")
	term.expect("TRIPWIRE begun\r\n")
	term.typeText("one\n")
	term.expect("one\r\none\r\n") // the terminal's echo of the typed text, then the output of cat
	term.typeText("\x1a")
	term.expect("Stopped")
	term.typeUntil("echo she\"\"ll\n", "shell\r\n")
	term.typeUntil("set -b; bg\n", "Stopped") // a read from the terminal stops cat in the background; set -b makes bash report the stop at once
	term.typeUntil("echo bash is ba\"\"ck\n", "back\r\n")
	term.typeText("fg\n")
	term.typeUntil("two\n", "two\r\ntwo\r\n")
	term.typeText("\x03")
	term.expect("^C")
	term.expect("$ ")
	term.typeText("echo code=$?\n")
	term.expect("code=130")
	// After keyhatch run, the next command in the same script can read from the terminal.
	term.typeText("sh -c 'keyhatch run --watch -- true; echo ready; read line; echo read:$line'\n")
	term.expect("\r\nready")
	term.typeText("three\n")
	term.expect("read:three")
}

// TestRunWatchAsSessionLeader runs keyhatch without a parent shell, as docker run -it
// does. Ctrl-Z must not stop the command forever, because no shell can continue the command.
func TestRunWatchAsSessionLeader(t *testing.T) {
	testenv.RequireTool(t, "bash")
	term := newTerminal(t, serveProject(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}}))
	term.typeText("exec keyhatch run --watch -- sh -c 'echo beg\"\"un; while read line; do echo read:$line; done'\n")
	term.expect("begun\r\n")
	term.typeText("\x1a")
	term.expect("^Z")
	term.typeUntil("one\n", "read:one\r\n")
}

// A terminal is the master side of a pseudoterminal in which an interactive shell runs.
type terminal struct {
	t      *testing.T
	ptmx   *os.File
	unread []byte // output that is not yet compared with an expected text
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
	// The method Fd sets the file descriptor to blocking mode, in which read deadlines do
	// not work.
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
		ptmx.Close() // sends SIGHUP to the remaining processes
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

// typeUntil types a line repeatedly until text appears in the output. A typed line can get
// lost while the foreground group changes, because the shell then changes the terminal's
// settings.
func (term *terminal) typeUntil(line, text string) {
	term.t.Helper()
	for range 50 {
		term.typeText(line)
		if term.waitFor(text, 300*time.Millisecond) == nil {
			return
		}
	}
	term.t.Fatalf("after typing %q: no %q in the output %q", line, text, term.unread)
}

// expect waits for text in the output. It discards the output up to the end of text.
func (term *terminal) expect(text string) {
	term.t.Helper()
	if err := term.waitFor(text, 15*time.Second); err != nil {
		term.t.Fatalf("waiting for %q: %v; the output is %q", text, err, term.unread)
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
