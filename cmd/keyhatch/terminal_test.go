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

// TestTerminal works with run --watch in an interactive shell as a person does:
// what the keys send reaches the command, it can be stopped and taken up
// again, and afterwards the terminal is the shell's.
func TestTerminal(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		if os.Getenv("KEYHATCH_TEST_ALL") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	socket := serve(t, "schema_version: 1\nproject: api\nsecrets: {A: }\n", schema.PushRequest{
		Secrets: map[schema.SecretName]schema.Value{"A": {Text: "TRIPWIRE"}},
	})
	p := newTerminal(t, socket)
	p.types("keyhatch run --watch -- sh -c 'echo $A begun; cat; echo ended'\n")
	p.sees("TRIPWIRE begun\r\n")
	p.types("one\n")
	p.sees("one\r\none\r\n") // the echo, and cat
	p.types("\x1a")
	p.sees("Stopped")
	p.insists("echo she\"\"ll\n", "shell\r\n")
	p.insists("set -b; bg\n", "Stopped") // it reads, and so is stopped again, which -b says at once
	p.insists("echo bash is ba\"\"ck\n", "back\r\n")
	p.types("fg\n")
	p.insists("two\n", "two\r\ntwo\r\n")
	p.types("\x03")
	p.sees("^C")
	p.sees("$ ")
	p.types("echo code=$?\n")
	p.sees("code=130")
	// Whatever comes next in the same script can read.
	p.types("sh -c 'keyhatch run --watch -- true; echo ready; read line; echo read:$line'\n")
	p.sees("\r\nready")
	p.types("three\n")
	p.sees("read:three")
}

// TestTerminalWithoutShell: nothing runs around the command, as in docker run
// -it, so what stops it must not stop it for good.
func TestTerminalWithoutShell(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		if os.Getenv("KEYHATCH_TEST_ALL") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	p := newTerminal(t, serve(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}}))
	p.types("exec keyhatch run --watch -- sh -c 'echo beg\"\"un; while read line; do echo read:$line; done'\n")
	p.sees("begun\r\n")
	p.types("\x1a")
	p.sees("^Z")
	p.insists("one\n", "read:one\r\n")
}

// A terminal is the far end of an interactive shell's.
type terminal struct {
	t   *testing.T
	f   *os.File
	got []byte // not seen yet
}

func newTerminal(t *testing.T, socket string) *terminal {
	t.Helper()
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(f.Fd())
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
	near, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	c := exec.Command("bash", "--norc", "--noprofile", "-i")
	c.Env = append(os.Environ(), "KEYHATCH_SOCKET="+socket, "PS1=$ ", "TERM=dumb", "GORACE=atexit_sleep_ms=0")
	c.Dir = t.TempDir()
	c.Stdin, c.Stdout, c.Stderr = near, near, near
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close() // hangs up on all that is left
		c.Process.Kill()
		c.Wait()
	})
	p := &terminal{t: t, f: f}
	p.sees("$ ")
	return p
}

func (p *terminal) types(text string) {
	p.t.Helper()
	if _, err := p.f.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// insists types a line again and again until it sees text. While the terminal is
// handed over what is typed may be lost: its settings change.
func (p *terminal) insists(line, text string) {
	p.t.Helper()
	for range 50 {
		p.types(line)
		if p.waits(text, 300*time.Millisecond) == nil {
			return
		}
	}
	p.t.Fatalf("typing %q, waiting for %q: there is %q", line, text, p.got)
}

// sees waits for text, and forgets it and what came before.
func (p *terminal) sees(text string) {
	p.t.Helper()
	if err := p.waits(text, 15*time.Second); err != nil {
		p.t.Fatalf("waiting for %q: %v; there is %q", text, err, p.got)
	}
}

func (p *terminal) waits(text string, most time.Duration) error {
	p.f.SetReadDeadline(time.Now().Add(most))
	for {
		if i := bytes.Index(p.got, []byte(text)); i >= 0 {
			p.got = p.got[i+len(text):]
			return nil
		}
		b := make([]byte, 4096)
		n, err := p.f.Read(b)
		p.got = append(p.got, b[:n]...)
		if err != nil {
			return err
		}
	}
}
