// Package audit writes the broker's audit events, one JSON object per line, to
// a file, to standard output, or to the journal.
//
// An event contains counts, never the name or the value of a secret. Writing
// never delays the broker: an event that does not fit into the queue, or that
// cannot be written, is counted, and the count is written as soon as writing
// works again. Only if audit is required does an answer to a project wait for
// its event.
package audit

import (
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// queueSize is how many events can wait for the disk before events are dropped.
const queueSize = 4096

// requiredTimeout is how long an answer waits for its event if audit is
// required. The client gets its refusal within a second.
const requiredTimeout = 900 * time.Millisecond

// closeTimeout is how long Close waits for the disk. A restart of the daemon
// waits for Close, and every client waits for the restart.
const closeTimeout = 500 * time.Millisecond

// An Event is one of schema's audit events. None of them has a field that could
// hold the name or the value of a secret, so a caller can record neither.
type Event interface {
	schema.BrokerStarted | schema.BrokerStopped |
		schema.SecretsPushed | schema.SecretsCleared | schema.PushRejected |
		schema.ProjectRegistered | schema.ProjectUnregistered | schema.ProjectReloaded |
		schema.ManifestRejected | schema.SecretsFetched | schema.PeerRefused | schema.RateLimited |
		schema.AuditDropped
}

// A Config describes a log. Log is required, and either Path or Out.
type Config struct {
	// Path is a file that events are appended to. It is created with mode 0600.
	// If it is renamed or removed, for example by log rotation, the next event
	// creates it again.
	Path string
	// Out receives the events if Path is empty, one event per Write.
	Out io.Writer
	// Required makes RecordFetch wait until the event is written.
	Required bool
	// Log receives an error when events cannot be written.
	Log *slog.Logger
}

// A Log is an open audit log. Its methods may be called by several goroutines at
// the same time.
type Log struct {
	required bool
	log      *slog.Logger
	queue    chan *item
	output   output // owned by the writer goroutine
	recent   ring
	fetches  *fetchMerger

	unreported atomic.Uint64 // events dropped since the last audit.dropped event
	dropped    atomic.Uint64 // events dropped since Open
	done       chan struct{} // closed when the writer goroutine has ended
}

// An item is an event in the queue.
type item struct {
	time    time.Time
	line    []byte
	written chan error  // has room for one result; nil if no caller waits
	givenUp atomic.Bool // the caller no longer waits: the event must not be written
}

// Open opens a log. The caller must Close it.
func Open(config Config) (*Log, error) {
	l := &Log{
		required: config.Required, log: config.Log,
		queue:  make(chan *item, queueSize),
		output: output{path: config.Path, out: config.Out},
		done:   make(chan struct{}),
	}
	l.fetches = newFetchMerger(func(f Fetch) { Record(l, f.event()) })
	if config.Path != "" {
		if err := l.output.reopen(); err != nil {
			return nil, err
		}
	}
	go l.writeEvents() // ended, and waited for, by Close
	return l, nil
}

// Close writes the events in the queue and closes the log. If the disk does not
// respond, Close returns after half a second. Nothing may be recorded afterwards.
func (l *Log) Close() {
	l.fetches.close()
	close(l.queue)
	select {
	case <-l.done:
	case <-time.After(closeTimeout):
		l.log.Error("closing the audit log: some events could not be written in time", "events", len(l.queue))
	}
}

// Dropped returns the number of events that could not be recorded since Open.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

func (l *Log) countDropped() {
	l.unreported.Add(1)
	l.dropped.Add(1)
}

// Record queues an event. It never waits.
func Record[E Event](l *Log, event E) {
	queued := newItem(event)
	if queued == nil {
		l.countDropped()
		return
	}
	select {
	case l.queue <- queued:
	default:
		l.countDropped()
	}
}

// RecordFetch records an answer. If audit is required, it waits until the event is
// written. It reports false if the event could not be written; the secrets must not be
// sent then.
//
// If audit is not required, the first answer to a project and uid is recorded at once.
// Later ones within a second are added up in one event, so that a project that fetches
// all the time does not fill the disk.
func (l *Log) RecordFetch(f Fetch) bool {
	if !l.required {
		l.fetches.add(f)
		return true
	}
	queued := newItem(f.event())
	if queued == nil {
		l.countDropped()
		return false
	}
	queued.written = make(chan error, 1)
	timeout := time.NewTimer(requiredTimeout)
	defer timeout.Stop()
	select {
	case l.queue <- queued:
	case <-timeout.C:
		l.countDropped()
		return false
	}
	select {
	case err := <-queued.written:
		return err == nil
	case <-timeout.C:
		// The secret will not be sent. If the event is being written at this
		// moment, the log overstates access, which is the safe direction.
		queued.givenUp.Store(true)
		l.countDropped()
		return false
	}
}

// newItem encodes an event. It returns nil if that fails, which would be a bug:
// an event consists of numbers and validated names.
func newItem[E Event](event E) *item {
	line, err := wire.Encode(event)
	if err != nil {
		return nil
	}
	return &item{time: time.Now(), line: line}
}

// Subscribe returns a reader of the events that are written from now on, and of
// those recent ones that were recorded after since. The zero time starts with
// the oldest event that is still in memory.
func (l *Log) Subscribe(since time.Time) *Reader { return l.recent.newReader(since) }

func (l *Log) writeEvents() {
	defer close(l.done)
	defer l.recent.close()
	failing := false
	for queued := range l.queue {
		if queued.givenUp.Load() {
			continue
		}
		l.reportDropped() // before the first event that can be recorded again
		err := l.write(queued)
		if queued.written != nil {
			queued.written <- err
		}
		if err != nil {
			l.countDropped()
			if !failing {
				l.log.Error("cannot write audit events; counting them until writing works again", "error", err)
			}
		} else if failing {
			l.log.Info("writing audit events works again")
		}
		failing = err != nil
	}
	l.reportDropped()
	l.output.close()
}

func (l *Log) write(queued *item) error {
	if err := l.output.writeLine(queued.line); err != nil {
		return err
	}
	l.recent.add(queued.time, queued.line)
	return nil
}

func (l *Log) reportDropped() {
	n := l.unreported.Load()
	if n == 0 {
		return
	}
	report := newItem(schema.AuditDropped{EventHeader: Header(schema.EventAuditDropped), Count: n})
	if report != nil && l.write(report) == nil {
		l.unreported.Add(-n)
	}
}
