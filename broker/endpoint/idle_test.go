package endpoint

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// startParking serves an endpoint whose sessions are parked. It returns the number of sessions
// that are parked.
func startParking(t *testing.T, config Config) (e *Endpoint, path string, parked *atomic.Int64) {
	t.Helper()
	handler := okHandler()
	handler.Park, handler.Batch = true, true
	answer := handler.Answer
	handler.Answer = func(line []byte) Reply {
		if string(line) == "large" { // needs a large stack
			return Reply{Pieces: net.Buffers{[]byte(strings.Repeat("x", useStack(100))), []byte("\n")}}
		}
		return answer(line)
	}
	parked = new(atomic.Int64)
	config.Serve = func(s *Session) {
		if !s.active.IsZero() {
			parked.Add(-1)
		}
		if s.Run(handler); s.parked {
			parked.Add(1)
		}
	}
	e, path = startConfig(t, config, false)
	return e, path, parked
}

// useStack needs 100 bytes of stack for each of n calls.
func useStack(n int) int {
	var text [100]byte
	if n > 0 {
		text[n%100] = byte(useStack(n - 1))
	}
	return int(text[n%100]) + n
}

// TestParkedSessionContinues sends a request on a session that is parked, and then closes the
// connection.
func TestParkedSessionContinues(t *testing.T) {
	e, path, parked := startParking(t, Config{})
	c := dial(t, path)
	lines := bufio.NewReader(c)
	for range 3 {
		waitUntil(t, func() bool { return parked.Load() == 1 })
		fmt.Fprint(c, "{}\n{}\n")
		for range 2 {
			if answer, err := lines.ReadString('\n'); err != nil || answer != "{\"ok\":true}\n" {
				t.Errorf("the answer is %q, error %v", answer, err)
			}
		}
	}
	waitUntil(t, func() bool { return parked.Load() == 1 })
	c.Close()
	waitUntil(t, func() bool { return e.Connections() == 0 })
}

// TestParkedSessionEndsWithItsClientOrTheEndpoint shuts down the reading side of a client, drains
// an endpoint, and closes an endpoint. Parked sessions must end.
func TestParkedSessionEndsWithItsClientOrTheEndpoint(t *testing.T) {
	for name, end := range map[string]func(*Endpoint, *net.UnixConn){
		"the client does not read": func(_ *Endpoint, c *net.UnixConn) { c.CloseRead() },
		"drain":                    func(e *Endpoint, _ *net.UnixConn) { e.Drain(context.Background(), false) },
		"close":                    func(e *Endpoint, _ *net.UnixConn) { e.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			e, path, parked := startParking(t, Config{})
			c := dial(t, path)
			waitUntil(t, func() bool { return parked.Load() == 1 })
			// The broker need not notice a single event, because that costs it nothing.
			waitUntil(t, func() bool { end(e, c); return e.Connections() == 0 })
		})
	}
}

// TestIdleConnectionsNeedLittleMemory opens many connections that wait for their second request.
// The goroutine and the data of a connection must need at most 5 KiB.
func TestIdleConnectionsNeedLittleMemory(t *testing.T) {
	const connections, limit = 200, 5 << 10
	_, path, parked := startParking(t, Config{MaxConnections: connections})
	before := memory()
	for range connections {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		unix.Write(fd, []byte("large\n"))
		if n, err := unix.Read(fd, make([]byte, 1)); n != 1 {
			t.Fatalf("read %d bytes, error %v", n, err)
		}
	}
	waitUntil(t, func() bool { return parked.Load() == connections })
	if each := (memory() - before) / connections; each > limit {
		t.Errorf("an idle connection needs %d bytes, want at most %d", each, limit)
	} else {
		t.Logf("an idle connection needs %d bytes", each)
	}
}

// memory returns how much memory goroutines and data use, in bytes.
func memory() int {
	runtime.GC()
	runtime.GC() // discards the workspaces in the pool
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc + stats.StackInuse)
}
