package cli

import (
	"io"
	"log/slog"
	"os"
	"time"
)

// logQueueSize is the maximum number of log lines that wait to be written.
const logQueueSize = 256

// NewDaemonLogger returns a logger for a daemon. The logger writes to standard error. If the
// reader of standard error is slow or has exited, the daemon continues, and the logger drops the
// lines that it cannot write. flush is lossyWriter.flush.
//
// If standard output or standard error is a broken pipe, SIGPIPE ends a Go process that writes to
// the pipe (os/signal, "SIGPIPE"). Therefore a daemon must call secmem.Harden, which ignores
// SIGPIPE.
func NewDaemonLogger() (log *slog.Logger, flush func()) {
	lines := newLossyWriter(os.Stderr)
	return slog.New(slog.NewTextHandler(lines, nil)), lines.flush
}

// A lossyWriter writes lines in a separate goroutine and drops lines while its queue
// is full. The goroutine is necessary because a write to standard error can block, for
// example if standard error is a stream to the journal and the journal stops.
type lossyWriter struct {
	lines   chan []byte   // the queue; for a nil line, the goroutine sends a message on flushed
	flushed chan struct{} // receives a message when the lines before a nil line are written
}

func newLossyWriter(out io.Writer) lossyWriter {
	p := lossyWriter{make(chan []byte, logQueueSize), make(chan struct{}, 1)}
	go func() { // the goroutine ends when lines is closed, or when the daemon ends
		for line := range p.lines {
			if line == nil {
				p.flushed <- struct{}{}
				continue
			}
			out.Write(line) // ignore a write error, because the log is the only place to report it
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

// flush waits until the lines in the queue are written, for at most one second. If the
// queue is full, flush does not wait.
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
