package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// ReadHidden asks for what, for example "value of A", on a terminal and appends the input to buf
// until the user presses Ctrl-D. If the input is longer than the capacity of buf, buf is full,
// and ReadHidden discards the rest.
//
// Every return restores the settings of the terminal and discards unread input, so that a shell
// does not run a part of a pasted value.
//
// The kernel does not collect lines, because it would cut a line after 4095 bytes (termios(3),
// canonical mode). The kernel also sends no signals for keys such as Ctrl-C, because it would
// then discard the input before the key, and ReadHidden could get the input after the key before
// the signal. Instead, ReadHidden handles these keys in the order of the input.
func ReadHidden(ctx context.Context, tty *os.File, what string, buf []byte) (_ []byte, err error) {
	// The buffer is large, because package signal discards a signal if the buffer is full.
	signals := make(chan os.Signal, 64)
	// SIGPIPE means that the reader of standard error has ended.
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE, syscall.SIGTSTP, syscall.SIGCONT)
	defer signal.Stop(signals)
	saved, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		return buf, err
	}
	defer func() { fmt.Fprintln(os.Stderr) }()
	defer restoreTerminal(tty, saved)
	ask := func(note string) error {
		if err := hideInput(tty, *saved); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%s%s (hidden; press Ctrl-D to end): ", note, what)
		return nil
	}
	if err := ask(""); err != nil {
		return buf, err
	}
	in := hiddenInput{text: buf}
	handle := func(sig os.Signal) error {
		switch sig {
		case syscall.SIGTSTP:
			restoreTerminal(tty, saved)
			fmt.Fprintln(os.Stderr)
			stopProcess()
			in.reset()
			return ask("starting again: the earlier input was discarded\n")
		case syscall.SIGCONT: // after SIGSTOP, a shell has changed the settings of the terminal
			return hideInput(tty, *saved)
		}
		return ExitStatus(128 + int(sig.(syscall.Signal)))
	}
	var chunk [4096]byte
	defer clear(chunk[:])
	for {
		select {
		case <-ctx.Done():
			return in.text, ctx.Err()
		case sig := <-signals:
			if err := handle(sig); err != nil {
				return in.text, err
			}
			continue
		default:
		}
		n, err := readAvailable(tty, chunk[:])
		if err != nil {
			return in.text, err
		}
		if n == 0 {
			if in.ended {
				return in.text, in.err
			}
			if lines := in.confirm(); lines > 0 {
				fmt.Fprintf(os.Stderr, "\nreceived %s (press Ctrl-D to end): ", Plural(lines, "line"))
			}
		}
		for i := 0; i < n && in.signal == 0; i++ {
			in.add(chunk[i])
		}
		if in.signal == 0 {
			continue
		}
		for n > 0 { // discard the rest of a paste
			if n, err = readAvailable(tty, chunk[:]); err != nil {
				return in.text, err
			}
		}
		// As the kernel does, send the signal to all processes of the foreground group, for
		// example to the script that runs this command.
		sig := in.signal
		in.signal = 0
		if err := unix.Kill(0, sig); err != nil {
			return in.text, err
		}
		for received := os.Signal(nil); received != sig; {
			received = <-signals
			if err := handle(received); err != nil {
				return in.text, err
			}
		}
	}
}

// readAvailable reads from a terminal. It returns 0 if no input arrives within a tenth of a
// second.
func readAvailable(tty *os.File, buf []byte) (int, error) {
	if ready, err := WaitInput(tty); !ready {
		return 0, err
	}
	n, err := tty.Read(buf)
	if err == io.EOF || errors.Is(err, unix.EIO) {
		err = errors.New("the terminal was closed")
	}
	return n, err
}

// hideInput turns off echo and all processing of the input by the kernel. It asks the terminal
// to mark pasted text.
func hideInput(tty *os.File, settings unix.Termios) error {
	settings.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.IEXTEN | unix.ISIG
	settings.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IUCLC | unix.IXON
	settings.Cc[unix.VMIN], settings.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, &settings); err != nil {
		return err
	}
	markPastes("\x1b[?2004h")
	return nil
}

// restoreTerminal discards unread input and restores the settings of the terminal. In the
// background, restoreTerminal does nothing: the terminal belongs to another process, and the
// kernel would stop this process.
func restoreTerminal(tty *os.File, settings *unix.Termios) {
	if group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP); err == nil && group != unix.Getpgrp() {
		return
	}
	markPastes("\x1b[?2004l")
	unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETSF, settings)
}

// markPastes writes an escape sequence that turns the mode "bracketed paste" of a terminal on
// or off. A terminal with this mode puts pasteStart and pasteEnd around pasted text.
func markPastes(sequence string) {
	if name := os.Getenv("TERM"); name != "" && name != "dumb" && term.IsTerminal(int(os.Stderr.Fd())) {
		fmt.Fprint(os.Stderr, sequence)
	}
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
