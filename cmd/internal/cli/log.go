package cli

import (
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// logQueueSize is the maximum number of log lines in the queue.
const logQueueSize = 256

// NewDaemonLogger returns a logger for a daemon. The logger writes to standard error.
// If the reader of standard error is slow or has exited, the daemon continues, and
// the logger drops lines. flush writes the lines that are still in the queue.
//
// A Go process ends if it writes to a broken standard output or error, even if its
// parent ignored SIGPIPE (os/signal, "SIGPIPE"). Therefore NewDaemonLogger handles
// SIGPIPE. It does not ignore the signal, because child processes would inherit that.
func NewDaemonLogger() (log *slog.Logger, flush func()) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	lines := newLossyWriter(os.Stderr)
	return slog.New(slog.NewTextHandler(lines, nil)), lines.flush
}

// A lossyWriter writes lines in its own goroutine and drops lines while its
// queue is full. If standard error is a stream to the journal, it blocks when the
// journal stops.
type lossyWriter struct {
	lines   chan []byte // nil requests a signal on flushed
	flushed chan struct{}
}

func newLossyWriter(out io.Writer) lossyWriter {
	p := lossyWriter{make(chan []byte, logQueueSize), make(chan struct{}, 1)}
	go func() { // runs until the process ends
		for line := range p.lines {
			if line == nil {
				p.flushed <- struct{}{}
				continue
			}
			out.Write(line) // an error cannot be reported
		}
	}()
	return p
}

func (p lossyWriter) Write(line []byte) (int, error) {
	select {
	case p.lines <- append([]byte{}, line...):
	default:
	}
	return len(line), nil
}

// flush waits until the queue is written, for at most one second.
func (p lossyWriter) flush() {
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
