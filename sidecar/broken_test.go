package sidecar

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// A broken broker answers status and ends the connection, at once or at the
// first push.
func brokenBroker(t *testing.T, atOnce bool) (socket string, dialed *atomic.Int64) {
	t.Helper()
	h := newHost(t)
	h.server.Close()
	socket = filepath.Join(h.dir, "broken.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	dialed = &atomic.Int64{}
	go func() { // ended by the listener's end
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			dialed.Add(1)
			lines := bufio.NewReader(c)
			lines.ReadString('\n')
			fmt.Fprintf(c, `{"ok":true,"instance_id":"one","protocol_version":%d}`+"\n", schema.ProtocolVersion)
			if !atOnce {
				lines.ReadString('\n')
			}
			c.Close()
		}
	}()
	return socket, dialed
}

// TestBrokenBrokerIsNotHammered: that a connection can be made does not make
// the next try come sooner. What is wrong is said once.
func TestBrokenBrokerIsNotHammered(t *testing.T) {
	for _, atOnce := range []bool{false, true} {
		socket, dialed := brokenBroker(t, atOnce)
		h := newHost(t)
		h.write("A", tripwire)
		began := time.Now()
		r := h.run(func(c *Config) {
			c.Socket = socket
			if atOnce { // so there must be nothing to push
				c.Store = store.Dir{Path: h.dir + "/none"}
			}
		})
		h.until("seven tries", func() bool { return dialed.Load() >= 7 })
		// Six pauses, each at least half of 10, 20, 40, 80, 160 and 320 ms.
		if took := time.Since(began); took < 315*time.Millisecond {
			t.Errorf("at once %v: seven tries took %v", atOnce, took)
		}
		r.stop()
		for _, line := range []string{"the push did not get through", "the broker ended the connection"} {
			if n := strings.Count(r.log.String(), line); n > 1 {
				t.Errorf("at once %v: %q was said %d times", atOnce, line, n)
			}
		}
	}
}

// slow is a store whose reads wait until they are let go.
type slow struct {
	store.Store
	slow  atomic.Bool
	began chan struct{}
}

func (s *slow) Read(ctx context.Context) (store.Set, error) {
	if s.slow.Load() {
		select {
		case s.began <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Store.Read(ctx)
}

// TestSlowStoreDelaysNothing: while a command takes its time, a broker that
// restarts gets the last good set all the same, and the end is not waited for.
func TestSlowStoreDelaysNothing(t *testing.T) {
	h := newHost(t)
	h.write("A", tripwire)
	from := &slow{Store: store.Dir{Path: h.store}, began: make(chan struct{}, 1)}
	r := h.run(func(c *Config) { c.Store, c.Poll = from, 10*time.Millisecond })
	h.has("A")
	from.slow.Store(true)
	<-from.began
	h.server.Close()
	h.start()
	h.has("A")
	r.stop()
}

// outdated is a store whose reading comes too late: what it has read is old by
// the time it is let go.
type outdated struct {
	store.Dir
	hold           atomic.Bool
	began, release chan struct{}
}

func (o *outdated) Read(ctx context.Context) (store.Set, error) {
	set, err := o.Dir.Read(ctx)
	if o.hold.CompareAndSwap(true, false) {
		o.began <- struct{}{}
		<-o.release
	}
	return set, err
}

// TestChangeDuringARead is read again right after it, though no event comes any
// more.
func TestChangeDuringARead(t *testing.T) {
	h := newHost(t)
	h.write("A", tripwire)
	from := &outdated{Dir: store.Dir{Path: h.store}, began: make(chan struct{}), release: make(chan struct{})}
	log := &logged{}
	h.run(func(c *Config) {
		c.Store = from
		c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	h.has("A")
	from.hold.Store(true)
	h.write("B", tripwire)
	<-from.began
	h.write("C", tripwire)
	running{log: log}.says(h, "moved while it was read")
	from.release <- struct{}{}
	h.has("A", "B", "C")
}
