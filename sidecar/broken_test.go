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

// startBrokenBroker starts a broker that answers only the first request of each
// connection. If closesAtOnce is true, the broker ends the connection immediately after
// this answer. Otherwise the broker ends the connection when the second request arrives.
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
	go func() { // ends when the cleanup closes the listener
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

// TestRetryDelayGrowsForBrokenBroker checks that the sidecar's retry delay grows even if
// every attempt to connect succeeds and the broker ends each connection afterwards. The
// test also checks that the sidecar logs each problem only once.
func TestRetryDelayGrowsForBrokenBroker(t *testing.T) {
	for _, closesAtOnce := range []bool{false, true} {
		socket, dialCount := startBrokenBroker(t, closesAtOnce)
		h := newTestHost(t)
		h.writeSecret("A", tripwire)
		start := time.Now()
		r := h.runSidecar(func(c *Config) {
			c.Socket = socket
			if closesAtOnce { // if the store does not exist, the sidecar does not push
				c.Store = store.Dir{Path: h.dir + "/none"}
			}
		})
		h.waitUntil("the sidecar has connected seven times", func() bool { return dialCount.Load() >= 7 })
		// Between seven attempts to connect, there are six retry delays. They are at
		// least half of 10, 20, 40, 80, 160, and 320 ms, so their sum is at least 315 ms.
		if elapsed := time.Since(start); elapsed < 315*time.Millisecond {
			t.Errorf("closesAtOnce %v: the sidecar connected seven times in %v; want at least 315 ms", closesAtOnce, elapsed)
		}
		r.stop()
		for _, line := range []string{"the push failed; retrying", "the broker ended the connection"} {
			if n := strings.Count(r.log.String(), line); n > 1 {
				t.Errorf("closesAtOnce %v: the sidecar logged %q %d times; want at most 1", closesAtOnce, line, n)
			}
		}
	}
}

// A blockingStore is a store whose Read can block. If block is true, Read blocks until
// its ctx ends.
type blockingStore struct {
	store.Store
	block       atomic.Bool
	readStarted chan struct{}
}

func (s *blockingStore) Read(ctx context.Context, previous *store.Reading) (*store.Reading, error) {
	if s.block.Load() {
		select {
		case s.readStarted <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Store.Read(ctx, previous)
}

// TestSlowReadBlocksNeitherPushNorExit checks the sidecar while a read of the store
// blocks. After a restart of the broker, the sidecar must push the last set that it has
// read. The sidecar must also exit without waiting for the store.
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

// A delayedStore is a store whose Read can return an outdated result. If delayNext is
// true, the next Read reads the files, and then waits for release before it returns. A
// test can change the files during this wait.
type delayedStore struct {
	store.Dir
	delayNext            atomic.Bool
	readStarted, release chan struct{}
}

func (o *delayedStore) Read(ctx context.Context, previous *store.Reading) (*store.Reading, error) {
	reading, err := o.Dir.Read(ctx, previous)
	if o.delayNext.CompareAndSwap(true, false) {
		o.readStarted <- struct{}{}
		<-o.release
	}
	return reading, err
}

// TestChangeDuringReadIsReadAgain changes the store while the sidecar reads the store. It
// checks that the sidecar reads the store again after this read, even if no other file
// event arrives.
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
	runningSidecar{log: log}.waitForLog(h, "the sidecar will read the store again after the current read")
	delayed.release <- struct{}{}
	h.waitForNames("A", "B", "C")
}
