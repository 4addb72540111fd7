package broker

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// auditQueue is how many events may wait for the disk before some are dropped.
const auditQueue = 4096

// An auditEvent is one of schema's events. None of them has a field that could
// hold a secret's name or value, so record can be given neither.
type auditEvent interface {
	schema.BrokerStarted | schema.BrokerStopped |
		schema.SecretsPushed | schema.SecretsCleared | schema.PushRejected |
		schema.ProjectRegistered | schema.ProjectUnregistered | schema.ProjectReloaded |
		schema.ManifestRejected | schema.SecretsFetched | schema.PeerRefused | schema.RateLimited |
		schema.AuditDropped
}

// requiredWithin is how long an answer waits to be recorded where it must be: the
// refusal is to be there within a second.
const requiredWithin = 900 * time.Millisecond

// An Audit writes events as NDJSON to a file, to standard output or to the
// journal. It makes nobody wait: what does not fit into its queue, or cannot be
// written, is counted and the count is written as soon as that works again. Only
// where it is required does an answer to a project wait for its event.
type Audit struct {
	path     string // "" means out is not a file of ours
	out      io.Writer
	file     *os.File
	torn     bool // the last line was cut short by an error
	required bool
	log      *slog.Logger

	queue   chan *auditItem
	dropped atomic.Uint64 // and not yet reported
	lost    atomic.Uint64 // since the start
	done    chan struct{} // closed when the writer has ended
}

// An auditItem is an event in the queue. Its state settles who comes first: the
// writer, or the one who waits and gives up.
type auditItem struct {
	line    []byte
	written chan error // has room for one; nil: nobody waits
	givenUp atomic.Bool
}

// OpenAudit starts an audit log that appends to the file at path, made with
// mode 0600, or writes to out where path is empty. A file that is renamed or
// removed, by log rotation say, is opened anew with the next event. out gets one
// event a Write. required refuses projects what cannot be recorded.
func OpenAudit(path string, out io.Writer, required bool, log *slog.Logger) (*Audit, error) {
	a := &Audit{path: path, out: out, required: required, log: log, queue: make(chan *auditItem, auditQueue), done: make(chan struct{})}
	if path != "" {
		if err := a.reopen(); err != nil {
			return nil, err
		}
	}
	go a.write() // ended, and waited for, by Close
	return a, nil
}

// closeWithin is how long the end of the log may take. A restart of the daemon
// waits for it, and everybody for the restart.
const closeWithin = 500 * time.Millisecond

// Close writes what is queued and ends the log. It waits for a disk that hangs no
// longer than closeWithin.
func (a *Audit) Close() {
	close(a.queue)
	select {
	case <-a.done:
	case <-time.After(closeWithin):
		a.log.Error("the audit log could not be finished", "events", len(a.queue))
	}
}

// Dropped is how many events could not be recorded since the start.
func (a *Audit) Dropped() uint64 { return a.lost.Load() }

func (a *Audit) drop() {
	a.dropped.Add(1)
	a.lost.Add(1)
}

// record queues an event.
func record[E auditEvent](a *Audit, event E) {
	line, err := wire.Encode(event)
	if err != nil { // an event is numbers and names: this is a bug
		a.drop()
		return
	}
	select {
	case a.queue <- &auditItem{line: line}:
	default:
		a.drop()
	}
}

// recordAnswer queues the event of an answer to a project, and where that is
// required waits until it is written. It reports false where it was not, and the
// answer must not be given.
func recordAnswer(a *Audit, event schema.SecretsFetched) bool {
	if !a.required {
		record(a, event)
		return true
	}
	line, err := wire.Encode(event)
	if err != nil {
		a.drop()
		return false
	}
	item := &auditItem{line: line, written: make(chan error, 1)}
	timeout := time.NewTimer(requiredWithin)
	defer timeout.Stop()
	select {
	case a.queue <- item:
	case <-timeout.C:
		a.drop()
		return false
	}
	select {
	case err := <-item.written:
		return err == nil
	case <-timeout.C:
		// What was not given needs no event; one that is just being written says
		// more than happened, which is the right way round.
		item.givenUp.Store(true)
		a.drop()
		return false
	}
}

// header begins an event.
func header(name schema.EventName) schema.EventHeader {
	return schema.EventHeader{Time: time.Now().UTC(), Event: name}
}

func (a *Audit) write() {
	defer close(a.done)
	failing := false
	for item := range a.queue {
		if item.givenUp.Load() {
			continue
		}
		a.sayDropped() // before the first event that can be recorded again
		err := a.append(item.line)
		if item.written != nil {
			item.written <- err
		}
		if err != nil {
			a.drop()
			if !failing {
				a.log.Error("an audit event could not be written; such events are counted until they can be", "error", err)
			}
		} else if failing {
			a.log.Info("audit events are written again")
		}
		failing = err != nil
	}
	a.sayDropped()
	if a.file != nil {
		a.file.Close()
	}
}

func (a *Audit) sayDropped() {
	n := a.dropped.Load()
	if n == 0 {
		return
	}
	line, err := wire.Encode(schema.AuditDropped{EventHeader: header(schema.EventAuditDropped), Count: n})
	if err == nil && a.append(line) == nil {
		a.dropped.Add(-n)
	}
}

func (a *Audit) append(line []byte) error {
	if a.path != "" {
		if err := a.follow(); err != nil {
			return err
		}
	}
	if a.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := a.out.Write(line)
	if n > 0 {
		a.torn = n < len(line)
	}
	return err
}

// follow opens the file anew where its path leads to another one, or to none.
func (a *Audit) follow() error {
	ours, err := a.file.Stat()
	if err != nil {
		return err
	}
	now, err := os.Stat(a.path)
	if err == nil && os.SameFile(ours, now) {
		return nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return a.reopen()
}

func (a *Audit) reopen() error {
	file, err := os.OpenFile(a.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if a.file != nil {
		a.file.Close()
	}
	a.file, a.out, a.torn = file, file, false
	return nil
}
