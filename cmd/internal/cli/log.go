package cli

import (
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// logQueue is how many lines of a log may wait for its reader.
const logQueue = 256

// DaemonLog is a log on standard error for a daemon, which waits for nobody who
// reads it and outlives them all. flush writes what is left.
//
// Go ends a process that writes to a broken standard output or error, even where
// the service manager had SIGPIPE ignored (os/signal, "SIGPIPE"). It is handled
// here and not ignored, which commands that are started would inherit.
func DaemonLog() (log *slog.Logger, flush func()) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	lines := newPatientWriter(os.Stderr)
	return slog.New(slog.NewTextHandler(lines, nil)), lines.flush
}

// A patientWriter writes lines in a goroutine of its own, and drops those for
// which there is no room: the journal's end of standard error is a stream that
// fills up when it stops.
type patientWriter struct {
	lines   chan []byte // nil asks for flushed
	flushed chan struct{}
}

func newPatientWriter(out io.Writer) patientWriter {
	p := patientWriter{make(chan []byte, logQueue), make(chan struct{}, 1)}
	go func() { // for as long as the process lives
		for line := range p.lines {
			if line == nil {
				p.flushed <- struct{}{}
				continue
			}
			out.Write(line) // there is nowhere to say that it failed
		}
	}()
	return p
}

func (p patientWriter) Write(line []byte) (int, error) {
	select {
	case p.lines <- append([]byte{}, line...):
	default:
	}
	return len(line), nil
}

// flush waits for what was written, but not for a reader who has stopped.
func (p patientWriter) flush() {
	select {
	case p.lines <- nil:
	default:
		return
	}
	select {
	case <-p.flushed:
	case <-time.After(time.Second):
	}
}
