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

// startBrokenBroker starts a broker that answers status and ends the connection, at once or at the
// first push.
func startBrokenBroker(t *testing.T, closesAtOnce bool) (socket string, dialCount *atomic.Int64) {
	t.Helper()
	h := newTestHost(t)
	h.server.Close()
	socket = filepath.Join(h.dir, "broken.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	dialCount = &atomic.Int64{}
	go func() { // ended by the listener's end
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			dialCount.Add(1)
			lines := bufio.NewReader(c)
			lines.ReadString('\n')
			fmt.Fprintf(c, `{"ok":true,"instance_id":"one","protocol_version":%d}`+"\n", schema.ProtocolVersion)
			if !closesAtOnce {
				lines.ReadString('\n')
			}
			c.Close()
		}
	}()
	return socket, dialCount
}

// TestRetryDelayGrowsForBrokenBroker: that a connection can be made does not make
// the next try come sooner. What is wrong is said once.
func TestRetryDelayGrowsForBrokenBroker(t *testing.T) {
	for _, closesAtOnce := range []bool{false, true} {
		socket, dialCount := startBrokenBroker(t, closesAtOnce)
		h := newTestHost(t)
		h.writeSecret("A", tripwire)
		start := time.Now()
		r := h.runSidecar(func(c *Config) {
			c.Socket = socket
			if closesAtOnce { // so there must be nothing to push
				c.Store = store.Dir{Path: h.dir + "/none"}
			}
		})
		h.waitUntil("seven tries", func() bool { return dialCount.Load() >= 7 })
		// Six pauses, each at least half of 10, 20, 40, 80, 160 and 320 ms.
		if elapsed := time.Since(start); elapsed < 315*time.Millisecond {
			t.Errorf("at once %v: seven tries took %v", closesAtOnce, elapsed)
		}
		r.stop()
		for _, line := range []string{"the push did not get through", "the broker ended the connection"} {
			if n := strings.Count(r.log.String(), line); n > 1 {
				t.Errorf("at once %v: %q was said %d times", closesAtOnce, line, n)
			}
		}
	}
}

// A blockingStore is a store whose reads block until their ctx ends, once block is
// set.
type blockingStore struct {
	store.Store
	block       atomic.Bool
	readStarted chan struct{}
}

func (s *blockingStore) Read(ctx context.Context) (store.Set, error) {
	if s.block.Load() {
		select {
		case s.readStarted <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Store.Read(ctx)
}

// TestSlowReadBlocksNeitherPushNorExit: while a command takes its time, a broker that
// restarts gets the last good set all the same, and the end is not waited for.
func TestSlowReadBlocksNeitherPushNorExit(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	blocking := &blockingStore{Store: store.Dir{Path: h.store}, readStarted: make(chan struct{}, 1)}
	r := h.runSidecar(func(c *Config) { c.Store, c.Poll = blocking, 10*time.Millisecond })
	h.waitForNames("A")
	blocking.block.Store(true)
	<-blocking.readStarted
	h.server.Close()
	h.startBroker()
	h.waitForNames("A")
	r.stop()
}

// A delayedStore is a store whose next read is delayed after it has read the files,
// so that its result can be out of date.
type delayedStore struct {
	store.Dir
	delayNext            atomic.Bool
	readStarted, release chan struct{}
}

func (o *delayedStore) Read(ctx context.Context) (store.Set, error) {
	set, err := o.Dir.Read(ctx)
	if o.delayNext.CompareAndSwap(true, false) {
		o.readStarted <- struct{}{}
		<-o.release
	}
	return set, err
}

// TestChangeDuringReadIsReadAgain: the store is read again right after it, though no event comes any
// more.
func TestChangeDuringReadIsReadAgain(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	delayed := &delayedStore{Dir: store.Dir{Path: h.store}, readStarted: make(chan struct{}), release: make(chan struct{})}
	log := &logBuffer{}
	h.runSidecar(func(c *Config) {
		c.Store = delayed
		c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	h.waitForNames("A")
	delayed.delayNext.Store(true)
	h.writeSecret("B", tripwire)
	<-delayed.readStarted
	h.writeSecret("C", tripwire)
	runningSidecar{log: log}.waitForLog(h, "moved while it was read")
	delayed.release <- struct{}{}
	h.waitForNames("A", "B", "C")
}
