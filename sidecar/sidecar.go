// Package sidecar watches a store of secrets and keeps a broker's memory equal
// to it: whenever the store changes, and whenever the broker comes back empty,
// the whole set is pushed.
//
// The sidecar is trusted with every secret. Its store is not trusted to be
// whole: while it is missing, unreadable or half-written the last good set
// stays in force. What it logs are counts, files and rules, never a secret's
// content.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// A Config says what a sidecar does. Store, Socket, Poll and Log are required.
type Config struct {
	Store  store.Store
	Socket string // the broker's admin socket
	// Poll is how often the store is read and the broker asked, whatever the
	// events say: on a network file system there are none.
	Poll time.Duration
	// ClearOnExit drops the broker's secrets when the sidecar ends.
	ClearOnExit bool
	Log         *slog.Logger

	noEvents bool // a test's: polling must do alone
}

// Run keeps the broker equal to the store until ctx ends. It returns an error
// only where it cannot begin.
//
// One goroutine, Run's, owns the events, the timers, the reader's and the
// publisher's state. Only the reading itself is done by another, one at a time,
// because a command may take its time while the broker restarts.
func (c Config) Run(ctx context.Context) error {
	if c.Poll <= 0 {
		return errors.New("the poll interval must be more than 0")
	}
	w := newWatcher(c.Log, func(path string) bool { return !c.noEvents && c.Store.IsAffectedBy(path) })
	defer w.close()
	p := newPublisher(c.Socket, c.Log)
	defer p.link.close()
	if c.ClearOnExit {
		defer p.clear()
	}
	r := newReader(c.Store, w, c.Log)
	defer r.finish()
	var n notifier

	poll := time.NewTicker(c.Poll)
	defer poll.Stop()
	settle := newSettling()
	defer settle.timer.Stop()
	retry := time.NewTimer(time.Hour)
	retry.Stop()
	defer retry.Stop()
	// A pause before a broker that fails is not cut short by a store that moves.
	pausing := false
	pause := func() { retry.Reset(p.link.pause()); pausing = true }
	var alive <-chan time.Time // nil, and so never, where nobody looks
	if w := watchdog(); w != nil {
		defer w.Stop()
		alive = w.C
	}
	for {
		select {
		case <-ctx.Done():
			daemon.SdNotify(false, daemon.SdNotifyStopping)
			return nil
		case <-alive:
			daemon.SdNotify(false, daemon.SdNotifyWatchdog)
			continue
		case <-w.events():
			settle.moved()
			continue
		case <-settle.timer.C:
			settle.over()
			r.begin(ctx)
			continue
		case <-poll.C:
			if !r.reading {
				r.begin(ctx)
			}
			p.ask(ctx)
		case done := <-r.readings:
			r.reading = false
			if r.take(ctx, done) {
				settle.moved()
			}
			if r.stale {
				r.begin(ctx)
			}
		case <-p.link.ended:
			if !p.ended() {
				pause()
			}
		case <-retry.C:
			pausing = false
		}
		if !pausing && !p.push(ctx, r.set) {
			pause()
		}
		n.tell(status(r, p))
	}
}

// status returns the service manager's line about the sidecar.
func status(r *reader, p *publisher) string {
	switch {
	case r.set == nil && r.storeErr == "":
		return "reading the store"
	case r.storeErr != "" && p.pushed != nil:
		return "the store cannot be used; the last good set is in force"
	case r.storeErr == "" && p.link.admin == nil:
		return "waiting for the broker"
	case r.storeErr == "" && p.pushed != nil:
		return fmt.Sprintf("%d secrets pushed, generation %d", len(p.pushed), p.generation)
	}
	return "the store cannot be used"
}
