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
		schema.ManifestRejected | schema.SecretsFetched | schema.PeerRefused |
		schema.AuditDropped
}

// An Audit writes events as NDJSON to a file or to standard output. It never
// makes its caller wait: what does not fit into its queue, or cannot be
// written, is counted and the count is written as soon as that works again.
type Audit struct {
	path string // "" means out is not a file of ours
	out  io.Writer
	file *os.File
	torn bool // the last line was cut short by an error
	log  *slog.Logger

	queue   chan []byte
	dropped atomic.Uint64
	done    chan struct{} // closed when the writer has ended
}

// OpenAudit starts an audit log that appends to the file at path, made with
// mode 0600, or writes to out where path is empty. A file that is renamed or
// removed, by log rotation say, is opened anew with the next event.
func OpenAudit(path string, out io.Writer, log *slog.Logger) (*Audit, error) {
	a := &Audit{path: path, out: out, log: log, queue: make(chan []byte, auditQueue), done: make(chan struct{})}
	if path != "" {
		if err := a.reopen(); err != nil {
			return nil, err
		}
	}
	go a.write() // ended, and waited for, by Close
	return a, nil
}

// Close writes what is queued and ends the log. It does not wait for a disk
// that hangs for longer than a second.
func (a *Audit) Close() {
	close(a.queue)
	select {
	case <-a.done:
	case <-time.After(time.Second):
		a.log.Error("the audit log could not be finished", "events", len(a.queue))
	}
}

// record queues an event.
func record[E auditEvent](a *Audit, event E) {
	line, err := wire.Encode(event)
	if err != nil { // an event is numbers and names: this is a bug
		a.dropped.Add(1)
		return
	}
	select {
	case a.queue <- line:
	default:
		a.dropped.Add(1)
	}
}

// header begins an event.
func header(name schema.EventName) schema.EventHeader {
	return schema.EventHeader{Time: time.Now().UTC(), Event: name}
}

func (a *Audit) write() {
	defer close(a.done)
	failing := false
	for line := range a.queue {
		a.sayDropped() // before the first event that can be recorded again
		err := a.append(line)
		if err != nil {
			a.dropped.Add(1)
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
