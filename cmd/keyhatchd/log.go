package main

import (
	"io"
	"time"
)

// logQueue is how many lines of the log may wait for a reader.
const logQueue = 256

// A patientLog writes lines in a goroutine of its own, and drops those for which
// there is no room: nobody who is served waits for the reader of a log. The
// journal's end of standard error is a pipe that fills up when it stops.
type patientLog struct {
	lines   chan []byte
	flushed chan struct{}
}

func newPatientLog(out io.Writer) patientLog {
	p := patientLog{make(chan []byte, logQueue), make(chan struct{}, 1)}
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

// flush waits for what was written, but not for a reader who has stopped.
func (p patientLog) flush() {
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

func (p patientLog) Write(line []byte) (int, error) {
	select {
	case p.lines <- append([]byte(nil), line...):
	default:
	}
	return len(line), nil
}
