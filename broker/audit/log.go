// Package audit writes the broker's audit events, one JSON object per line, to a file, to
// standard output, or to the journal.
//
// An event contains counts, never the name or the value of a secret. The broker does not wait
// until an event is written. If the queue is full or a write fails, the event is dropped. The
// log counts dropped events, and writes their number when writing works again. But if audit
// is required, the broker sends an answer to a project only after the event of the answer was
// written.
package audit

import (
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// queueSize is the number of events that can wait in the queue for the disk. If the queue
// is full, new events are dropped.
const queueSize = 4096

// requiredTimeout is the maximum time that an answer waits for its event if audit is
// required. It is shorter than one second, so that a client gets the refusal within one
// second.
const requiredTimeout = 900 * time.Millisecond

// closeTimeout is the maximum time that Close waits for the disk. It is short because a
// restart of the daemon waits for Close, and every client waits for the restart.
const closeTimeout = 500 * time.Millisecond

// Event lists the types of audit events. None of these types has a field for the name or the
// value of a secret, so no code can record a secret by mistake.
type Event interface {
	schema.BrokerStarted | schema.BrokerStopped |
		schema.SecretsPushed | schema.SecretsCleared | schema.PushRejected |
		schema.ProjectRegistered | schema.ProjectUnregistered | schema.ProjectReloaded |
		schema.ManifestRejected | schema.SecretsFetched | schema.PeerRefused | schema.RateLimited |
		schema.AuditDropped
}

// A Config is the configuration of an audit log. The field Log is required. Either Path or
// Out is required.
type Config struct {
	// Path is the file that events are appended to. If the file does not exist, the log
	// creates it with mode 0600. If the file is renamed or removed, for example by log
	// rotation, the log creates a new file at Path before it writes the next event.
	Path string
	// Out receives the events if Path is empty. The log calls Out.Write once for each
	// event.
	Out io.Writer
	// Required makes RecordFetch wait until its event is written.
	Required bool
	// Log receives a message when writing events begins to fail, and when writing works
	// again.
	Log *slog.Logger
}

// A Log is an open audit log. Several goroutines may call its methods at the same time.
type Log struct {
	required bool
	log      *slog.Logger
	queue    chan *item
	output   output // used only by the writer goroutine
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
	written chan error  // receives the result of the write; nil if no goroutine waits for it
	givenUp atomic.Bool // true if RecordFetch no longer waits, so the event must not be written
}

// Open opens an audit log. Close the log after use.
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
	go l.writeEvents() // Close ends this goroutine and waits for it
	return l, nil
}

// Close writes the events in the queue and closes the log. If the disk does not respond,
// Close returns after half a second. Do not record events after Close.
func (l *Log) Close() {
	l.fetches.close()
	close(l.queue)
	select {
	case <-l.done:
	case <-time.After(closeTimeout):
		l.log.Error("closed the audit log before all events were written: the disk did not respond in time", "events", len(l.queue))
	}
}

// Dropped returns the number of events since Open that could not be recorded.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

func (l *Log) countDropped() {
	l.unreported.Add(1)
	l.dropped.Add(1)
}

// Record adds an event to the queue. It never waits. If the queue is full, Record drops
// and counts the event.
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

// RecordFetch records an answer to a project. If audit is required, RecordFetch waits
// until the event is written. It returns false if the event could not be written. The
// caller must then not send the secrets.
//
// If audit is not required, RecordFetch always returns true. It records the first answer
// to a project and uid at once. It adds up later answers within a second, and records
// them as one event. Otherwise a project that fetches secrets continuously could fill the
// disk.
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
	// The buffer lets writeEvents send the result even if this call no longer waits.
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
		// RecordFetch returns false, so the broker does not send the secret. If the event is
		// being written at this moment, the log reports an access that did not happen. That
		// is safer than an access that is not in the log.
		queued.givenUp.Store(true)
		l.countDropped()
		return false
	}
}

// newItem encodes an event. It returns nil if the event cannot be encoded. That would be
// a bug, because an event contains only numbers and validated names.
func newItem[E Event](event E) *item {
	line, err := wire.Encode(event)
	if err != nil {
		return nil
	}
	return &item{time: time.Now(), line: line}
}

// Subscribe returns a reader of new events and of recent events. Its first event is the
// oldest event in memory that was recorded after since. If since is the zero time, the
// reader starts with the oldest event in memory.
func (l *Log) Subscribe(since time.Time) *Reader { return l.recent.newReader(since) }

func (l *Log) writeEvents() {
	defer close(l.done)
	defer l.recent.close()
	failing := false
	for queued := range l.queue {
		if queued.givenUp.Load() {
			continue
		}
		l.reportDropped() // write the number of dropped events before the next event
		err := l.write(queued)
		if queued.written != nil {
			queued.written <- err
		}
		if err != nil {
			l.countDropped()
			if !failing {
				l.log.Error("cannot write audit events; they are dropped and counted until writing works again", "error", err)
			}
		} else if failing {
			l.log.Info("audit events are written again")
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
