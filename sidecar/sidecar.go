// Package sidecar watches a store of secrets and keeps the secrets in the broker's memory
// equal to the store. It pushes the complete set of secrets when the store changes, when
// the broker has restarted without secrets, and when another client has replaced the set.
// If another sidecar is connected to the same broker, the broker refuses the pushes of this
// sidecar. The sidecar then tries again until the other sidecar has stopped.
//
// The sidecar is trusted with every secret. It does not assume that the store is complete. If the
// store is missing or unreadable, the sidecar continues to use the set of the last successful read.
// If a file is empty, open for writing, or unusable for another reason, the sidecar continues to use
// the old value of the file's secret, if the sidecar has read one since its start. Log messages
// contain counts, file names, names of secrets, and rules, but never the value of a secret. The
// secrets are in locked memory, and a set is wiped when another set replaces it.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// A Config is the configuration of a sidecar. The fields Store, Read, Socket, Poll, and Log
// are required.
type Config struct {
	// Store is used to watch the store, and to remove the temporary files of killed edits. Run
	// does not call the method Read of Store.
	Store store.Store
	// Read reads the store into locked memory (see store.ChildReader).
	Read   ReadFunc
	Socket string // the path of the broker's admin socket
	// TokenFile is the file with the broker's admin token. The sidecar reads the file for each
	// new connection. If TokenFile is "", the sidecar sends no token.
	TokenFile string
	// Poll is the interval at which the sidecar reads the store even if no file event
	// arrived. Network file systems send no file events. The sidecar also requests the
	// broker's status at this interval, or more often if the interval is long (see
	// statusInterval).
	Poll time.Duration
	// PushNow makes the sidecar push the store for each signal, even if the store has not changed. If
	// the sidecar has reported that secrets are missing in the store, the signal confirms their
	// removal. PushNow can be nil.
	PushNow <-chan os.Signal
	// If ClearOnExit is true, the sidecar removes all secrets from the broker when Run ends, if these
	// secrets are from the sidecar's last push.
	ClearOnExit bool
	Log         *slog.Logger

	ignoreEvents bool // tests set ignoreEvents, so that only polling detects changes
}

// statusInterval is the interval at which the sidecar requests the broker's status. It is
// shorter than the time after which the broker closes an idle connection, because the broker
// accepts the pushes of another sidecar after the connection has ended.
func (c Config) statusInterval() time.Duration { return min(c.Poll, schema.IdleTimeout/2) }

// Run keeps the secrets in the broker equal to the store until ctx ends. It returns an
// error only if the configuration is invalid.
//
// Run's goroutine owns the events, the timers, and the state of the reader and the
// publisher. Another goroutine reads the store, and only one read runs at a time. If
// Run's goroutine read the store, a slow store command would delay the push after a
// restart of the broker.
func (c Config) Run(ctx context.Context) error {
	if c.Poll <= 0 {
		return errors.New("the poll interval must be greater than 0")
	}
	watcher := newWatcher(c.Log, func(path string) bool { return !c.ignoreEvents && c.Store.IsAffectedBy(path) })
	defer watcher.close()
	publisher := newPublisher(c.Socket, c.TokenFile, c.Log)
	defer publisher.connection.close()
	if c.ClearOnExit {
		defer publisher.clearBroker()
	}
	reader := newStoreReader(c.Store, c.Read, watcher, c.Log)
	defer reader.close()
	var notifier notifier

	pollTicker := time.NewTicker(c.Poll)
	defer pollTicker.Stop()
	statusTicker := time.NewTicker(c.statusInterval())
	defer statusTicker.Stop()
	debouncer := newDebouncer()
	defer debouncer.timer.Stop()
	retryTimer := time.NewTimer(time.Hour)
	retryTimer.Stop()
	defer retryTimer.Stop()
	// While retryPending is true, Run waits for retryTimer before it calls push. A change
	// of the store does not shorten this wait.
	retryPending := false
	scheduleRetry := func() { retryTimer.Reset(publisher.connection.nextRetryDelay()); retryPending = true }
	// watchdogTick is nil if the watchdog is disabled. A nil channel is never ready.
	var watchdogTick <-chan time.Time
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
			continue
		case <-c.PushNow:
			publisher.requestPush()
			reader.confirmReplaced()
			reader.startReading(ctx)
		case <-statusTicker.C:
			publisher.checkBroker(ctx)
		case result := <-reader.results:
			reader.isReading = false
			if delay := reader.acceptResult(ctx, result); delay > 0 {
				debouncer.retryAfter(delay)
			}
			// If the operator has cleared the broker, the sidecar uses the replaced store, as after
			// SIGUSR1.
			if result.isReplaced() && (reader.confirmed || publisher.isCleared) {
				reader.acceptReplaced()
				reader.startReading(ctx)
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
		publisher.reportStoreProblems(ctx, problemCount(reader, publisher))
		if !retryPending && !publisher.push(ctx, reader.lastGood.Set) {
			scheduleRetry()
		}
		notifier.sendStatus(statusText(reader, publisher))
	}
}

// problemCount returns the number of problems with the store that the sidecar has logged and that
// have not ended.
func problemCount(reader *storeReader, publisher *publisher) (count int) {
	for _, file := range reader.unusable {
		if file.reported != "" {
			count++
		}
	}
	if reader.lastError != "" || publisher.withholdsEmptySet {
		count++
	}
	return count
}

// statusText returns the text that describes the sidecar's status to the service manager.
func statusText(reader *storeReader, publisher *publisher) string {
	switch {
	case reader.lastGood.Set == nil && reader.lastError == "":
		return "reading the store"
	case reader.isReplaced:
		return "the store was replaced, and secrets are missing; the secrets in the broker do not change"
	case reader.lastError != "" && publisher.pushed != nil:
		return "cannot read the store; the secrets in the broker do not change"
	case reader.lastError == "" && publisher.connection.admin == nil:
		return "waiting for the broker"
	case reader.lastError == "" && publisher.withholdsEmptySet:
		return "the store has no secrets; the secrets in the broker do not change"
	case reader.lastError == "" && publisher.isRefused:
		return "waiting until another sidecar of the same broker stops"
	case reader.lastError == "" && publisher.pushed != nil:
		noun := "secrets"
		count := len(publisher.pushed.Names())
		if count == 1 {
			noun = "secret"
		}
		status := fmt.Sprintf("pushed %d %s, generation %d", count, noun, publisher.generation)
		if n := len(reader.lastGood.Unusable); n > 0 {
			status += fmt.Sprintf("; unusable files: %d", n)
		}
		return status
	}
	return "cannot read the store"
}
