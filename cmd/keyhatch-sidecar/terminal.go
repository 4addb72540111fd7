package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"golang.org/x/sys/unix"
)

// readHidden asks for the value name on a terminal and appends the input to buf until the
// user presses Ctrl-D. If the input is longer than the capacity of buf, buf is full, and
// readHidden discards the rest.
//
// Every return restores the settings of the terminal and discards unread input, so that a
// shell does not run a part of a pasted value.
//
// The terminal does not collect lines, because the kernel cuts a line after 4095 bytes
// (termios(3), canonical mode). The terminal still sends signals for keys such as Ctrl-C.
func readHidden(ctx context.Context, tty *os.File, name string, buf []byte) (_ []byte, err error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGCONT)
	defer signal.Stop(signals)
	saved, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		return buf, err
	}
	defer func() { fmt.Fprintln(os.Stderr) }()
	defer restoreTerminal(tty, saved)
	ask := func() error {
		if err := hideInput(tty, *saved); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "value of %s (hidden; press Ctrl-D to end): ", name)
		return nil
	}
	if err := ask(); err != nil {
		return buf, err
	}
	var line hiddenInput
	line.text = buf
	var chunk [4096]byte
	defer clear(chunk[:])
	for !line.ended {
		select {
		case <-ctx.Done():
			return line.text, ctx.Err()
		case sig := <-signals:
			switch sig {
			case syscall.SIGTSTP:
				restoreTerminal(tty, saved)
				fmt.Fprintln(os.Stderr)
				stopProcess()
				line.truncate(0) // the terminal has discarded a part of the input
				err = ask()
			case syscall.SIGCONT: // after SIGSTOP, a shell has changed the settings of the terminal
				err = hideInput(tty, *saved)
			default:
				return line.text, cli.ExitStatus(128 + int(sig.(syscall.Signal)))
			}
			if err != nil {
				return line.text, err
			}
			continue
		default:
		}
		ready, err := cli.WaitInput(tty)
		if err != nil {
			return line.text, err
		}
		if !ready {
			continue
		}
		n, err := tty.Read(chunk[:])
		if err == io.EOF || errors.Is(err, unix.EIO) {
			return line.text, errors.New("the terminal was closed")
		}
		if err != nil {
			return line.text, err
		}
		for _, key := range chunk[:n] {
			line.add(key)
		}
	}
	return line.text, line.err
}

// hideInput turns off echo and the collection of lines.
func hideInput(tty *os.File, settings unix.Termios) error {
	settings.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.IEXTEN
	settings.Lflag |= unix.ISIG
	settings.Iflag |= unix.ICRNL // the key Enter and a pasted line break are a \n
	settings.Iflag &^= unix.ISTRIP | unix.INLCR | unix.IGNCR
	settings.Cc[unix.VMIN], settings.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, &settings)
}

// restoreTerminal discards unread input and restores the settings of the terminal. In the
// background, restoreTerminal does nothing: the terminal belongs to another process, and the
// kernel would stop this process.
func restoreTerminal(tty *os.File, settings *unix.Termios) {
	if group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP); err == nil && group != unix.Getpgrp() {
		return
	}
	unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETSF, settings)
}

// stopProcess stops this process until a shell continues the process. It returns at once if
// no shell can do this, because the kernel then ignores the signal (setpgid(2), orphaned
// process group).
//
// The signal is SIGTTOU, because the Go runtime cannot restore the default action of SIGTSTP.
// The signal is sent to the calling thread, so that the process stops before Tgkill returns.
func stopProcess() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGTTOU)
}

// A hiddenInput collects the keys of a user.
type hiddenInput struct {
	text  []byte // never grows beyond its capacity
	ended bool
	err   error
}

// add adds a key. After an error, add still waits for Ctrl-D, because the rest of a paste can
// follow.
func (in *hiddenInput) add(key byte) {
	const ctrlD, backspace, ctrlU, del = 0x04, '\b', 0x15, 0x7f
	switch {
	case in.ended:
		in.err = errors.New("the input continues after Ctrl-D")
	case key == ctrlD:
		in.ended = true
	case key == backspace, key == del:
		_, size := utf8.DecodeLastRune(in.text)
		in.truncate(len(in.text) - size)
	case key == ctrlU:
		in.truncate(len(in.text) - len(lastLine(in.text)))
	case key < ' ' && key != '\n' && key != '\t':
		in.err = errors.New("the input contains a control character, for example from a cursor key: use --file or a pipe for a value with control characters")
	case len(in.text) < cap(in.text):
		in.text = append(in.text, key)
	}
}

func (in *hiddenInput) truncate(size int) {
	clear(in.text[size:])
	in.text = in.text[:size]
}

// lastLine returns the part of text after the last newline.
func lastLine(text []byte) []byte {
	for i := len(text); i > 0; i-- {
		if text[i-1] == '\n' {
			return text[i:]
		}
	}
	return text
}
