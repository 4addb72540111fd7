package cli

import (
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// logQueueSize is the number of lines that can wait to be written.
const logQueueSize = 256

// NewDaemonLogger is a log on standard error for a daemon, which waits for nobody who
// reads it and outlives them all. flush writes what is left.
//
// Go ends a process that writes to a broken standard output or error, even where
// the service manager had SIGPIPE ignored (os/signal, "SIGPIPE"). It is handled
// here and not ignored, which commands that are started would inherit.
func NewDaemonLogger() (log *slog.Logger, flush func()) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	lines := newDroppingWriter(os.Stderr)
	return slog.New(slog.NewTextHandler(lines, nil)), lines.flush
}

// A droppingWriter writes lines in its own goroutine and drops lines while its
// queue is full. Standard error may be a stream to the journal, which fills up
// if the journal stops.
type droppingWriter struct {
	lines   chan []byte // nil asks for flushed
	flushed chan struct{}
}

func newDroppingWriter(out io.Writer) droppingWriter {
	p := droppingWriter{make(chan []byte, logQueueSize), make(chan struct{}, 1)}
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

func (p droppingWriter) Write(line []byte) (int, error) {
	select {
	case p.lines <- append([]byte{}, line...):
	default:
	}
	return len(line), nil
}

// flush waits for what was written, but not for a reader who has stopped.
func (p droppingWriter) flush() {
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
