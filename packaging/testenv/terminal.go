package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Terminal is the master side of a pseudoterminal on which a command runs.
type Terminal struct {
	t      testing.TB
	cmd    *exec.Cmd
	pts    *os.File // the slave side of the pseudoterminal
	ptmx   *os.File // the master side of the pseudoterminal
	output []byte   // all output
	unread []byte   // the output after the last text that Expect found
}

// StartOnTerminal starts a command as the session leader of a new pseudoterminal. When the
// test ends, the terminal is closed and the command is killed.
func StartOnTerminal(t testing.TB, c *exec.Cmd) *Terminal {
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
	c.Stdin, c.Stdout, c.Stderr = pts, pts, pts
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	// If the test process ignored one of these signals, the command would ignore the signal
	// too. Therefore the test process handles these signals until the command has started. A
	// signal that the test process handles has its default action in the command.
	handled := make(chan os.Signal, 1)
	signal.Notify(handled, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT)
	err = c.Start()
	signal.Stop(handled)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pts.Close()
		ptmx.Close() // sends SIGHUP to the remaining processes
		c.Process.Kill()
		c.Wait()
	})
	return &Terminal{t: t, cmd: c, pts: pts, ptmx: ptmx}
}

// IsEchoing reports whether the terminal echoes typed text and provides line editing.
func (term *Terminal) IsEchoing() bool {
	term.t.Helper()
	raw, err := term.ptmx.SyscallConn()
	if err != nil {
		term.t.Fatal(err)
	}
	var settings *unix.Termios
	if controlErr := raw.Control(func(fd uintptr) { settings, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) }); controlErr != nil || err != nil {
		term.t.Fatal(controlErr, err)
	}
	return settings.Lflag&unix.ECHO != 0 && settings.Lflag&unix.ICANON != 0
}

// Output returns all output that was read up to now.
func (term *Terminal) Output() []byte { return term.output }

// HangUp closes the master side of the terminal, as a terminal window does when it is closed.
func (term *Terminal) HangUp() { term.ptmx.Close() }

// Wait waits until the command that StartOnTerminal started has ended, and returns the
// command's exit code (see ShellExitCode). If the command does not end within 15 seconds, Wait
// kills the command, and the test fails.
func (term *Terminal) Wait() (exitCode int) {
	term.t.Helper()
	timer := time.AfterFunc(15*time.Second, func() { term.cmd.Process.Kill() })
	term.cmd.Wait()
	if !timer.Stop() {
		term.t.Fatal("the command did not end within 15 seconds")
	}
	return ShellExitCode(term.cmd.ProcessState)
}

// WaitUntilRead waits until the command has read the typed text. Before you call
// WaitUntilRead, wait for the echo of the text, because the terminal processes typed text with
// a delay.
func (term *Terminal) WaitUntilRead() {
	term.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(time.Millisecond) {
		unread, err := unix.IoctlGetInt(int(term.pts.Fd()), unix.TIOCINQ)
		if err != nil {
			term.t.Fatal(err)
		}
		if unread == 0 {
			return
		}
		if time.Now().After(deadline) {
			term.t.Fatal("the command did not read the typed text within 15 seconds")
		}
	}
}

// Type types a text.
func (term *Terminal) Type(text string) {
	term.t.Helper()
	if _, err := term.ptmx.WriteString(text); err != nil {
		term.t.Fatal(err)
	}
}

// TypeUntil types a line up to 50 times, until text appears in the output. If text does not
// appear, the test fails. A typed line can get lost while the foreground group changes,
// because the shell then changes the terminal's settings.
func (term *Terminal) TypeUntil(line, text string) {
	term.t.Helper()
	for range 50 {
		term.Type(line)
		if term.waitFor(text, 300*time.Millisecond) == nil {
			term.Expect(text)
			return
		}
	}
	term.t.Fatalf("after typing %q: no %q in the output %q", line, text, term.unread)
}

// Expect waits for text in the output. Expect returns the output before text, and discards the
// output up to the end of text. If text does not appear within 15 seconds, the test fails.
func (term *Terminal) Expect(text string) (before string) {
	term.t.Helper()
	if err := term.waitFor(text, 15*time.Second); err != nil {
		term.t.Fatalf("waiting for %q: %v; the output after the previous match is %q", text, err, term.unread)
	}
	i := bytes.Index(term.unread, []byte(text))
	before = string(term.unread[:i])
	term.unread = term.unread[i+len(text):]
	return before
}

// waitFor waits until text is in the unread output.
func (term *Terminal) waitFor(text string, timeout time.Duration) error {
	term.ptmx.SetReadDeadline(time.Now().Add(timeout))
	for !bytes.Contains(term.unread, []byte(text)) {
		b := make([]byte, 4096)
		n, err := term.ptmx.Read(b)
		term.output, term.unread = append(term.output, b[:n]...), append(term.unread, b[:n]...)
		if err != nil {
			return err
		}
	}
	return nil
}

// Rest returns the remaining output. Call Rest only after all processes on the terminal
// have ended, because Rest reads until no process has the terminal open.
func (term *Terminal) Rest() string {
	term.t.Helper()
	term.pts.Close()
	term.ptmx.SetReadDeadline(time.Now().Add(15 * time.Second))
	rest, err := io.ReadAll(term.ptmx)
	if err != nil && !errors.Is(err, unix.EIO) { // EIO means that no process has the terminal open
		term.t.Fatal(err)
	}
	rest = append(term.unread, rest...)
	term.unread = nil
	return string(rest)
}
