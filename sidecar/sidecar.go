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
	"io/fs"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// patience is how long a store may be at work without a word about it.
const patience = 10 * time.Second

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

// A state is what Run knows. One goroutine, Run's, owns it all: the events, the
// timers, what was read, what was pushed, and the connection. Only the reading
// itself is done by another, one at a time, because a command may take its time
// while the broker restarts; it has the watcher and the store meanwhile.
type state struct {
	Config
	watcher  *watcher
	link     link
	readings chan reading // of the reader's, where reading is true
	reading  bool
	stale    bool // something moved while it read

	set      store.Set       // the last good one; nil: none yet
	storeErr string          // said already
	moving   time.Time       // since when it does not stand still; zero: it does
	linkSaid map[string]bool // since the connection last worked

	pushed     store.Set // what the broker took of us last
	instance   string    // of the broker that took it
	generation uint64    // that it gave
	told       string    // to the service manager
}

// Run keeps the broker equal to the store until ctx ends. It returns an error
// only where it cannot begin.
func (c Config) Run(ctx context.Context) error {
	if c.Poll <= 0 {
		return errors.New("the poll interval must be more than 0")
	}
	w := newWatcher(c.Log, func(path string) bool { return !c.noEvents && c.Store.Concerns(path) })
	defer w.close()
	s := &state{Config: c, watcher: w, link: link{socket: c.Socket}, readings: make(chan reading), linkSaid: map[string]bool{}}
	defer s.exit()
	defer s.finish()

	poll := time.NewTicker(c.Poll)
	defer poll.Stop()
	settle := newSettling()
	defer settle.timer.Stop()
	retry := time.NewTimer(time.Hour)
	retry.Stop()
	defer retry.Stop()
	// A pause before a broker that fails is not cut short by a store that moves.
	pausing := false
	pause := func() { retry.Reset(s.link.pause()); pausing = true }
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
			s.begin(ctx)
			continue
		case <-poll.C:
			if !s.reading {
				s.begin(ctx)
			}
			s.ask(ctx)
		case r := <-s.readings:
			s.reading = false
			if s.take(ctx, r) {
				settle.moved()
			}
			if s.stale {
				s.begin(ctx)
			}
		case <-s.link.ended:
			worked := s.link.worked
			s.link.close()
			s.sayLink(slog.LevelInfo, "the broker ended the connection", nil)
			if !worked {
				pause()
			}
		case <-retry.C:
			pausing = false
		}
		if !pausing && !s.push(ctx) {
			pause()
		}
		s.tell()
	}
}

// A reading is what came of reading the store once.
type reading struct {
	set store.Set
	err error
	// again says that a directory was not watched before: what came into it before
	// then had no event.
	again bool
}

// begin has the store read, now or as soon as the reading under way is done.
func (s *state) begin(ctx context.Context) {
	s.stale = s.reading
	if s.reading {
		s.Log.Debug("the store moved while it was read: it will be read again")
		return
	}
	s.reading = true
	go func() { s.readings <- s.read(ctx) }() // waited for by finish; ends with ctx
}

// finish waits for the reading under way. ctx has ended.
func (s *state) finish() {
	if s.reading {
		<-s.readings
	}
}

// read reads the store. It is the reader's part.
func (s *state) read(ctx context.Context) (r reading) {
	r.again = s.watcher.watch(s.Store.Watch())
	if r.set, r.err = s.Store.Read(ctx); r.err == nil {
		// A set that is too large is bad like one that cannot be read.
		var line []byte
		line, r.err = r.set.EncodePush()
		clear(line)
	}
	return r
}

// take makes what was read the set to push, and says, once each, that the store
// is bad and that it is well. It reports whether to look again soon: at a
// directory that was not watched before, or at a store that does not stand still.
func (s *state) take(ctx context.Context, r reading) (again bool) {
	if ctx.Err() != nil {
		return false
	}
	if errors.Is(r.err, store.ErrUnstable) {
		if s.moving.IsZero() {
			s.moving = time.Now()
		}
		if time.Since(s.moving) < patience {
			return true // somebody is at work: look again soon
		}
	} else {
		s.moving = time.Time{}
	}
	if r.err != nil {
		if r.err.Error() != s.storeErr {
			s.storeErr = r.err.Error()
			attributes := []any{"error", r.err}
			if hint := hintFor(r.err); hint != "" {
				attributes = append(attributes, "hint", hint)
			}
			s.Log.Error("the store cannot be used; the broker keeps the last good set until it can", attributes...)
		}
		return r.again
	}
	if s.storeErr != "" {
		s.storeErr = ""
		s.Log.Info("the store is well again")
	}
	s.set = r.set
	return r.again
}

// hintFor says what to do about errors that are the system's: the sidecar's own
// name their rule, which says it.
func hintFor(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "create it, mount it, or correct --store; it is found when it comes"
	case errors.Is(err, fs.ErrPermission):
		return "let the sidecar's user read it: chown or chmod it"
	}
	return ""
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
	if err == nil {
		s.linkWorked()
	} else if ctx.Err() == nil {
		s.sayLink(slog.LevelWarn, "the broker does not say how it is", err)
	}
}

// sayLink says what is wrong with the connection, each thing once until it works.
func (s *state) sayLink(level slog.Level, what string, err error) {
	said, attributes := what, []any{}
	if err != nil {
		said += err.Error()
		attributes = append(attributes, "error", err)
	}
	if !s.linkSaid[said] {
		s.linkSaid[said] = true
		s.Log.Log(context.Background(), level, what, attributes...)
	}
}

func (s *state) linkWorked() {
	if len(s.linkSaid) > 0 {
		clear(s.linkSaid)
		s.Log.Info("the broker answers again")
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
			if ctx.Err() == nil {
				s.sayLink(slog.LevelWarn, "no broker to push to yet", err)
			}
			return ctx.Err() != nil
		}
		s.compare(status)
	}
	if s.set == nil || (s.pushed != nil && s.set.Equal(s.pushed)) {
		return true
	}
	set := s.set
	err := s.link.call(func(admin *client.Admin) error {
		line, err := set.EncodePush()
		if err != nil {
			return err
		}
		defer clear(line)
		answer, err := admin.Push(ctx, line)
		if err == nil {
			s.pushed, s.generation = set, answer.Generation
			s.Log.Info("pushed", "secrets", answer.SecretCount, "generation", answer.Generation)
		}
		return err
	})
	if err == nil {
		s.linkWorked()
	}
	if err == nil || ctx.Err() != nil {
		return true
	}
	if client.CodeOf(err) != "" {
		// Trying again at once would get the same answer; the next change or
		// poll tries again.
		s.Log.Error("the broker refused the set", "code", client.CodeOf(err), "error", err)
		return true
	}
	s.sayLink(slog.LevelWarn, "the push did not get through", err)
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
