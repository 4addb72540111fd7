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

	ignoreEvents bool // for tests: only polling finds changes
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
	watcher := newWatcher(c.Log, func(path string) bool { return !c.ignoreEvents && c.Store.IsAffectedBy(path) })
	defer watcher.close()
	publisher := newPublisher(c.Socket, c.Log)
	defer publisher.connection.close()
	if c.ClearOnExit {
		defer publisher.clearBroker()
	}
	reader := newStoreReader(c.Store, watcher, c.Log)
	defer reader.wait()
	var notifier notifier

	pollTicker := time.NewTicker(c.Poll)
	defer pollTicker.Stop()
	debouncer := newDebouncer()
	defer debouncer.timer.Stop()
	retryTimer := time.NewTimer(time.Hour)
	retryTimer.Stop()
	defer retryTimer.Stop()
	// The delay before a failing broker stays when the store changes.
	retryPending := false
	scheduleRetry := func() { retryTimer.Reset(publisher.connection.nextRetryDelay()); retryPending = true }
	var watchdogTick <-chan time.Time // nil, and so never ready, without a watchdog
	if ticker := newWatchdogTicker(); ticker != nil {
		defer ticker.Stop()
		watchdogTick = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			daemon.SdNotify(false, daemon.SdNotifyStopping)
			return nil
		case <-watchdogTick:
			daemon.SdNotify(false, daemon.SdNotifyWatchdog)
			continue
		case <-watcher.changes:
			debouncer.trigger()
			continue
		case <-debouncer.timer.C:
			debouncer.reset()
			reader.startReading(ctx)
			continue
		case <-pollTicker.C:
			if !reader.isReading {
				reader.startReading(ctx)
			}
			publisher.checkBroker(ctx)
		case result := <-reader.results:
			reader.isReading = false
			if reader.acceptResult(ctx, result) {
				debouncer.trigger()
			}
			if reader.rereadNeeded {
				reader.startReading(ctx)
			}
		case <-publisher.connection.closed:
			if !publisher.handleDisconnect() {
				scheduleRetry()
			}
		case <-retryTimer.C:
			retryPending = false
		}
		if !retryPending && !publisher.push(ctx, reader.lastGood) {
			scheduleRetry()
		}
		notifier.sendStatus(statusText(reader, publisher))
	}
}

// statusText returns the service manager's line about the sidecar.
func statusText(reader *storeReader, publisher *publisher) string {
	switch {
	case reader.lastGood == nil && reader.lastError == "":
		return "reading the store"
	case reader.lastError != "" && publisher.pushed != nil:
		return "the store cannot be used; the last good set is in force"
	case reader.lastError == "" && publisher.connection.admin == nil:
		return "waiting for the broker"
	case reader.lastError == "" && publisher.pushed != nil:
		return fmt.Sprintf("%d secrets pushed, generation %d", len(publisher.pushed), publisher.generation)
	}
	return "the store cannot be used"
}
