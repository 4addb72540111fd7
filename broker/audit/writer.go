package audit

import (
	"log/slog"

	"github.com/keyhatch/keyhatch/schema"
)

// A writer writes the events of a buffer to an output, and adds them to the recent events.
type writer struct {
	buffer  *buffer
	output  output
	recent  *ring
	log     *slog.Logger
	failing bool // the last write of a batch failed
}

// run writes events until the buffer is closed. It then writes the remaining events and closes
// the output.
func (w *writer) run() {
	for closed := false; !closed; {
		var taken batch
		if taken, closed = w.buffer.take(); len(taken.items) > 0 {
			w.writeBatch(taken)
		}
		w.buffer.recycle(taken)
	}
	w.reportDropped()
	w.output.close()
}

// writeBatch writes the events of a batch with one write, except the events that were given up.
// If the write fails, writeBatch drops and counts the events that were not written.
func (w *writer) writeBatch(taken batch) {
	var encodeErr error
	entries := make([]entry, 0, len(taken.items))
	wanted := 0 // number of events that were not given up
	for i := range taken.items {
		if taken.items[i].givenUp {
			continue
		}
		wanted++
		if encodeErr == nil {
			var line []byte
			if line, encodeErr = taken.items[i].encode(); encodeErr == nil {
				entries = append(entries, entry{taken.items[i].time, line})
			}
		}
	}
	if wanted == 0 {
		return
	}
	w.reportDropped() // before the batch, because the dropped events are older than the batch
	written, err := w.writeEntries(entries)
	if err == nil {
		err = encodeErr
	}
	if written < wanted {
		w.buffer.countDropped(wanted - written)
	}
	if taken.result != nil {
		taken.finish(written)
	}
	failed := w.failing
	w.failing = err != nil
	if err != nil && !failed {
		w.log.Error("cannot write audit events; they are dropped and counted until writing works again", "error", err)
	} else if err == nil && failed {
		w.log.Info("audit events are written again")
	}
}

// writeEntries writes the lines of all entries with one write, and returns how many lines were
// written completely. It adds the entries of these lines to the recent events.
func (w *writer) writeEntries(entries []entry) (written int, err error) {
	var lines []byte
	for _, e := range entries {
		lines = append(lines, e.line...)
	}
	n, err := w.output.write(lines)
	for _, e := range entries {
		if n -= len(e.line); n < 0 {
			break
		}
		written++
	}
	w.recent.add(entries[:written])
	return written, err
}

func (w *writer) reportDropped() {
	n := w.buffer.unreported.Load()
	if n == 0 {
		return
	}
	event := schema.AuditDropped{EventHeader: Header(schema.EventAuditDropped), Count: n}
	report := item{event: event}
	line, err := report.encode()
	if err != nil {
		return
	}
	if written, _ := w.writeEntries([]entry{{event.Time, line}}); written == 1 {
		w.buffer.unreported.Add(-n)
	}
}
