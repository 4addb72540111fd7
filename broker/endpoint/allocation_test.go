//go:build !race

package endpoint

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// These tests cannot run with the race detector, because the race detector needs additional
// memory, and because sync.Pool discards some values in a build with the race detector.

// TestRequestsNeedNoAllocation first sends single requests, and then 32 requests with each write.
// The broker must make no allocation for a single request, and at most one for 32 requests.
func TestRequestsNeedNoAllocation(t *testing.T) {
	handler := okHandler()
	handler.Batch = true
	handler.Limit = NewLimiter(1e9, 1)
	reply := Reply{Pieces: net.Buffers{[]byte("{\"ok\":true}\n")}, Release: func() {}}
	handler.Answer = func([]byte) Reply { return reply }
	_, path := start(t, func(s *Session) { s.Run(handler) }, false)
	c := dial(t, path)
	for _, together := range []int{1, 32} {
		requests := bytes.Repeat([]byte("{}\n"), together)
		answers := make([]byte, together*len("{\"ok\":true}\n"))
		ask := func() {
			if _, err := c.Write(requests); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, answers); err != nil {
				t.Fatal(err)
			}
		}
		// The broker makes one allocation for a system call that sends several pieces.
		if n := testing.AllocsPerRun(1000, ask); n > 0 && together == 1 || n > 1 {
			t.Errorf("%d requests need %g allocations", together, n)
		}
	}
}

// TestIdleConnectionsNeedLittleMemory opens many connections, sends one request on each, and
// waits until their sessions are parked. The goroutine and the data of each connection must then
// need at most 5 KiB.
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

// memory returns how much memory the heap and the stacks of goroutines use, in bytes.
func memory() int {
	runtime.GC()
	runtime.GC() // discards the workspaces in the pool
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc + stats.StackInuse)
}
