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
	"reflect"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/go-json-experiment/json"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// A change is read once nothing has moved for quiet, and latest that long after
// the first event.
const (
	quiet  = 200 * time.Millisecond
	latest = 2 * time.Second
)

// patience is how long a store may be at work without a word about it.
const patience = 10 * time.Second

// A Config says what a sidecar does. All fields but ClearOnExit are required.
type Config struct {
	Store  Store
	Socket string // the broker's admin socket
	// Poll is how often the store is read and the broker asked, whatever the
	// events say: on a network file system there are none.
	Poll time.Duration
	// ClearOnExit drops the broker's secrets when the sidecar ends.
	ClearOnExit bool
	Log         *slog.Logger

	noEvents bool // a test's: polling must do alone
}

// A state is what Run knows. One goroutine, Run's, owns it all: the events, the
// timers, what was read, what was pushed, and the connection.
type state struct {
	Config
	watcher *watcher
	link    link

	set      *schema.PushRequest // the last good one; nil: none yet
	storeErr string              // said already
	moving   time.Time           // since when it does not stand still; zero: it does
	linkErr  string              // said already

	pushed     *schema.PushRequest // what the broker took of us last
	instance   string              // of the broker that took it
	generation uint64              // that it gave
	told       string              // to the service manager
}

// Run keeps the broker equal to the store until ctx ends. It returns an error
// only where it cannot begin.
func (c Config) Run(ctx context.Context) error {
	if c.Poll <= 0 {
		return errors.New("the poll interval must be more than 0")
	}
	w := newWatcher(c.Log, func(path string) bool { return !c.noEvents && c.Store.Concerns(path) })
	defer w.close()
	s := &state{Config: c, watcher: w, link: link{socket: c.Socket}}
	defer s.exit()

	poll := time.NewTicker(c.Poll)
	defer poll.Stop()
	settle := time.NewTimer(0) // the first read is now
	defer settle.Stop()
	retry := time.NewTimer(time.Hour)
	retry.Stop()
	defer retry.Stop()
	var alive <-chan time.Time // nil, and so never, where nobody looks
	if w := watchdog(); w != nil {
		defer w.Stop()
		alive = w.C
	}
	var deadline time.Time // of the changes that are settling; zero: none are
	for {
		again := false
		select {
		case <-ctx.Done():
			daemon.SdNotify(false, daemon.SdNotifyStopping)
			return nil
		case <-alive:
			daemon.SdNotify(false, daemon.SdNotifyWatchdog)
			continue
		case <-w.events():
			now := time.Now()
			if deadline.IsZero() {
				deadline = now.Add(latest)
			}
			settle.Reset(min(quiet, time.Until(deadline)))
			continue
		case <-settle.C:
			deadline = time.Time{}
			again = s.read(ctx)
		case <-poll.C:
			again = s.read(ctx)
			s.ask(ctx)
		case <-s.link.ended:
			s.link.close()
			s.Log.Info("the broker ended the connection")
		case <-retry.C:
		}
		if again {
			settle.Reset(quiet)
		}
		if !s.push(ctx) {
			retry.Reset(s.link.pause())
		}
		s.tell()
	}
}

// read reads the store and says, once each, that it is bad and that it is well.
// It reports whether to look again soon: at a directory that was not watched
// before, or at a store that does not stand still.
func (s *state) read(ctx context.Context) (again bool) {
	again = s.watcher.watch(s.Store.Watch())
	set, err := s.Store.Read(ctx)
	if err == nil {
		err = fits(set)
	}
	if ctx.Err() != nil {
		return false
	}
	if errors.Is(err, errMoved) {
		if s.moving.IsZero() {
			s.moving = time.Now()
		}
		if time.Since(s.moving) < patience {
			return true // somebody is at work: look again soon
		}
	} else {
		s.moving = time.Time{}
	}
	if err != nil {
		if err.Error() != s.storeErr {
			s.storeErr = err.Error()
			s.Log.Error("the store cannot be used; the broker keeps the last good set until it can", "error", err)
		}
		return again
	}
	if s.storeErr != "" {
		s.storeErr = ""
		s.Log.Info("the store is well again")
	}
	s.set = &set
	return again
}

// fits refuses a set that the broker would.
func fits(set schema.PushRequest) error {
	set.Op = schema.OpPush
	line, err := json.Marshal(set)
	if err != nil {
		return errors.New("the set cannot be encoded") // its error could quote a secret
	}
	defer clear(line)
	if len(line) > schema.MaxPush {
		return fmt.Errorf("the set has %d bytes on the wire, and a push takes %d", len(line), schema.MaxPush)
	}
	return nil
}

// ask looks after the broker where nothing has changed here: it may have
// restarted, been cleared, or been given another set.
func (s *state) ask(ctx context.Context) {
	if s.link.admin == nil {
		return // push dials
	}
	err := s.link.call(func(admin *client.Admin) error {
		status, err := admin.Status(ctx)
		if err == nil {
			s.compare(status)
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		s.Log.Warn("the broker does not say how it is", "error", err)
	}
}

// compare decides what a broker's status means: a broker that restarted, and
// one that was given another set, get the store's again. A broker that holds
// nothing was cleared by its operator, and that holds until the store changes.
func (s *state) compare(status schema.StatusResponse) {
	switch {
	case status.InstanceID != s.instance:
		s.instance, s.pushed = status.InstanceID, nil
	case status.Generation != s.generation && status.Generation != 0:
		s.pushed = nil
		s.Log.Warn("something else pushes to this broker, perhaps a second sidecar; the store is pushed again",
			"generation", status.Generation, "ours", s.generation)
	}
}

// push brings the broker what it does not have, connecting first where there is
// no connection. It reports false where it must be tried again soon.
func (s *state) push(ctx context.Context) bool {
	if s.link.admin == nil {
		status, err := s.link.dial(ctx)
		if err != nil {
			if ctx.Err() == nil && err.Error() != s.linkErr {
				s.linkErr = err.Error()
				s.Log.Warn("no broker to push to yet", "error", err)
			}
			return ctx.Err() != nil
		}
		s.linkErr = ""
		s.compare(status)
	}
	if s.set == nil || (s.pushed != nil && reflect.DeepEqual(*s.set, *s.pushed)) {
		return true
	}
	set := s.set
	err := s.link.call(func(admin *client.Admin) error {
		answer, err := admin.Push(ctx, *set)
		if err == nil {
			s.pushed, s.generation = set, answer.Generation
			s.Log.Info("pushed", "secrets", answer.SecretCount, "generation", answer.Generation)
		}
		return err
	})
	if err == nil || ctx.Err() != nil {
		return true
	}
	if client.CodeOf(err) != "" {
		// Trying again at once would get the same answer; the next change or
		// poll tries again.
		s.Log.Error("the broker refused the set", "code", client.CodeOf(err), "error", err)
		return true
	}
	s.Log.Warn("the push did not get through", "error", err)
	return false
}

// exit clears the broker where that is wanted, and ends the connection.
func (s *state) exit() {
	defer s.link.close()
	if !s.ClearOnExit {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastRetry)
	defer cancel()
	if s.link.admin == nil {
		if _, err := s.link.dial(ctx); err != nil {
			s.Log.Error("the broker could not be cleared", "error", err)
			return
		}
	}
	if err := s.link.call(func(admin *client.Admin) error { return admin.Clear(ctx) }); err != nil {
		s.Log.Error("the broker could not be cleared", "error", err)
	}
}
