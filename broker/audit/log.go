// Package audit writes the broker's audit events, one JSON object per line, to a file, to
// standard output, or to the journal. It keeps the last written events in memory for readers.
//
// An event contains counts, never the name or the value of a secret. Usually, the broker does not
// wait until an event is written. If the buffer is full or a write fails, the log drops and
// counts the event. When writing works again, the log writes the number of dropped events. But if
// audit is required, the broker sends the answer to a get or a get-many only after the event of
// this answer was written. If the event cannot be written, the broker refuses the request.
package audit

import (
	"io"
	"log/slog"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// requiredTimeout is the maximum time that RecordFetch and RecordAndWait wait until their event is
// written, if audit is required. It is shorter than one second, so that a client gets the refusal within one
// second.
const requiredTimeout = 900 * time.Millisecond

// closeTimeout is the maximum time that Close waits for the output, for example a disk. The time
// is short, because a restart of the broker waits for Close, and clients wait for the restart.
const closeTimeout = 500 * time.Millisecond

// A Config is the configuration of an audit log. The field Log is required. Either Path or
// Out is required.
type Config struct {
	// Path is the file that events are appended to. If the file does not exist, the log
	// creates it with mode 0600. If the file is renamed or removed, for example by log
	// rotation, the log creates a new file at Path before it writes the next event.
	Path string
	// Out receives the events if Path is empty. Each call of Out.Write gets one or more whole
	// lines. If the previous call wrote only a part of a line, the next call begins with a
	// newline. If Out.Write returns an error, it must also return the number of bytes that it has
	// written.
	Out io.Writer
	// Required makes RecordFetch wait until its event is written, but for 0.9 seconds at
	// most.
	Required bool
	// Log receives a message when writing events begins to fail, when writing works again, and if
	// Close does not write all events.
	Log *slog.Logger
}

// A Log is an open audit log. Several goroutines may call its methods at the same time.
type Log struct {
	required bool
	log      *slog.Logger
	buffer   *buffer
	recent   ring
	active   activeMergers
	done     chan struct{} // closed when the writer goroutine has ended
}

// Open opens an audit log. It fails if the file at Config.Path cannot be opened. Close the log
// after use.
func Open(config Config) (*Log, error) {
	l := &Log{
		required: config.Required, log: config.Log, buffer: newBuffer(),
		active: activeMergers{mergers: map[*fetchMerger]struct{}{}}, done: make(chan struct{}),
	}
	w := writer{buffer: l.buffer, output: output{path: config.Path, out: config.Out}, recent: &l.recent, log: config.Log}
	if config.Path != "" {
		if err := w.output.reopen(); err != nil {
			return nil, err
		}
	}
	go func() { // Close ends this goroutine and waits for it
		defer close(l.done)
		w.run()
	}()
	return l, nil
}

// Close writes the events in the buffer and closes the log. If the output does not respond, Close
// returns after closeTimeout, and events can be lost. Do not record events after Close.
func (l *Log) Close() {
	l.active.close()
	l.buffer.close()
	select {
	case <-l.done:
	case <-time.After(closeTimeout):
		l.log.Error("closed the audit log before all events were written: the output did not respond in time", "events", l.buffer.length())
	}
}

// Dropped returns the number of events that the log has dropped since Open.
func (l *Log) Dropped() uint64 { return l.buffer.dropped.Load() }

// Record adds an event to the buffer. It never waits for the output. If the buffer is full,
// Record drops and counts the event.
func Record[E Event](l *Log, event E) {
	l.buffer.add(item{time: event.When(), event: event}, true)
}

// RecordAndWait adds an event to the buffer. If audit is required, RecordAndWait waits until the
// event is written, and returns false in the same cases as ProjectLog.RecordFetch. If audit is not
// required, RecordAndWait does not wait and returns true.
func RecordAndWait[E Event](l *Log, event E) (written bool) {
	if l.required {
		return l.buffer.addAndWait(item{time: event.When(), event: event}, requiredTimeout)
	}
	Record(l, event)
	return true
}

// A ProjectLog records the answers to the clients of one project.
type ProjectLog struct {
	required bool
	merger   fetchMerger
}

// Project returns a ProjectLog, which need not be closed. Use only one ProjectLog for each
// project, because a ProjectLog merges the events of its project.
func (l *Log) Project(name schema.ProjectName) *ProjectLog {
	return &ProjectLog{l.required, fetchMerger{project: name, buffer: l.buffer, active: &l.active}}
}

// Required reports whether audit is required, so that RecordFetch waits until its event is
// written.
func (p *ProjectLog) Required() bool { return p.required }

// RecordFetch records an answer to a client of the project. If audit is required, RecordFetch
// waits until the event is written. If the buffer is full, the write fails, or the write takes
// longer than requiredTimeout, RecordFetch returns false, and the calling function must not send
// the secrets. The log writes events that wait at the same time with one write.
//
// If audit is not required, RecordFetch always returns true and never waits. It records the
// first answer to a uid at once. It adds up the counts of later answers to the same uid
// within a second, and records their sum as one event. Otherwise a project that fetches
// secrets continuously could fill the disk. The buffer collects these events for up to
// maxDelay, so that the events of several projects are written together.
func (p *ProjectLog) RecordFetch(f Fetch) bool {
	if p.required {
		return p.merger.buffer.addAndWait(item{time: time.Now(), project: p.merger.project, fetch: f}, requiredTimeout)
	}
	p.merger.add(f)
	return true
}

// Subscribe returns a reader of the events in memory and of all later events. The reader skips the
// events up to the time since. If since is the zero time, it skips no event. The result recent is
// the number of events in memory that the reader does not skip.
func (l *Log) Subscribe(since time.Time) (reader *Reader, recent int) {
	return l.recent.newReader(since)
}
