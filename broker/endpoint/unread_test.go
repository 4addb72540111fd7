package endpoint

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TestUnreadAnswersCount sends requests and does not read the answers. The endpoint must count
// each connection until its client has read the answers or closed the connection.
func TestUnreadAnswersCount(t *testing.T) {
	e, path := start(t, answerOK, false)
	reading, closing := dial(t, path), dial(t, path)
	for _, c := range []*net.UnixConn{reading, closing} {
		fmt.Fprint(c, strings.Repeat("{}\n", 10))
		c.CloseWrite()
	}
	// When both clients see the end of the stream, the broker has ended both sessions.
	for _, c := range []*net.UnixConn{reading, closing} {
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		waitUntil(t, func() (ended bool) {
			raw.Control(func(fd uintptr) {
				fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
				unix.Poll(fds, 0)
				ended = fds[0].Revents&unix.POLLRDHUP != 0
			})
			return ended
		})
	}
	if n := e.Connections(); n != 2 {
		t.Errorf("%d connections with unread answers are counted, want 2", n)
	}
	answers, err := io.ReadAll(reading)
	if err != nil || strings.Count(string(answers), "\n") != 10 {
		t.Errorf("read %q, %v", answers, err)
	}
	waitUntil(t, func() bool { return e.Connections() == 1 })
	closing.Close()
	waitUntil(t, func() bool { return e.Connections() == 0 })
}

// TestUnreadBytesAreLimited sends a large answer to a client that does not read. The kernel
// must store only a small part of the answer.
func TestUnreadBytesAreLimited(t *testing.T) {
	var session *Session
	wrote := make(chan bool)
	_, path := start(t, func(s *Session) {
		session = s
		wrote <- s.Write(Reply{Pieces: net.Buffers{make([]byte, 1<<20)}})
		wrote <- true
	}, false)
	dial(t, path)
	if <-wrote {
		t.Error("Write sent 1 MiB, although the client does not read")
	}
	if n := session.conn.unreadBytes(); n == 0 || n > 3*sendBuffer {
		t.Errorf("the kernel stores %d bytes of unread answers, want 1 to %d", n, 3*sendBuffer)
	}
	<-wrote
}

// TestUnreadAnswersAreLimitedInAll pretends that all endpoints together have manyConnections
// connections. An endpoint whose clients do not read must then refuse new connections, until
// the clients close their connections. An endpoint without unread answers must still accept
// connections.
func TestUnreadAnswersAreLimitedInAll(t *testing.T) {
	e, path := start(t, func(s *Session) {
		h := okHandler()
		h.Answer = func(line []byte) Reply {
			if string(line) == "{}" {
				return Answer(schema.OKResponse{OK: true})
			}
			return Reply{Pieces: net.Buffers{make([]byte, 1<<20)}}
		}
		s.Run(h)
	}, false)
	other, otherPath := start(t, answerOK, false)
	e.config.Total.Store(manyConnections)
	other.config.Total.Store(manyConnections)
	ping := func(path string) string {
		c := dial(t, path)
		defer c.Close()
		fmt.Fprintln(c, "{}")
		answer, _ := bufio.NewReader(c).ReadString('\n')
		return answer
	}
	if answer := ping(path); !strings.Contains(answer, `"ok":true`) {
		t.Errorf("without unread answers, the answer is %s", answer)
	}
	waitUntil(t, func() bool { return e.Connections() == 0 })
	var unread []*net.UnixConn
	for range 4 {
		unread = append(unread, dial(t, path))
	}
	// Wait until the endpoint has accepted these connections. After the first large answers, the
	// endpoint could refuse the other connections.
	waitUntil(t, func() bool { return e.Connections() == 4 })
	for _, c := range unread {
		fmt.Fprintln(c, `{"large":true}`)
	}
	waitUntil(t, func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.holdsTooMuchLocked()
	})
	if answer := ping(path); !strings.Contains(answer, "rate_limited") {
		t.Errorf("while answers are unread, the answer on a new connection is %s", answer)
	}
	if answer := ping(otherPath); !strings.Contains(answer, `"ok":true`) {
		t.Errorf("the answer of another endpoint is %s", answer)
	}
	for _, c := range unread {
		c.Close()
	}
	waitUntil(t, func() bool { return e.Connections() == 0 })
	if answer := ping(path); !strings.Contains(answer, `"ok":true`) {
		t.Errorf("after the clients closed their connections, the answer is %s", answer)
	}
}

// TestExpiredAnswerEnds writes an answer that expires while the client does not read. The
// write must end and release the answer.
func TestExpiredAnswerEnds(t *testing.T) {
	var expired atomic.Bool
	released := make(chan struct{})
	_, path := start(t, func(s *Session) {
		if s.Write(Reply{
			Pieces: net.Buffers{make([]byte, 1<<20)}, Expired: expired.Load, Release: func() { close(released) },
		}) {
			t.Error("the write succeeded, but the client did not read")
		}
	}, false)
	dial(t, path)
	expired.Store(true)
	<-released
}

// TestSlowWriteEnds writes a large answer to a client that reads all the time. The write must end
// when the write timeout is over or the answer has expired, although the client reads a part of
// the answer between any two checks.
func TestSlowWriteEnds(t *testing.T) {
	// The answer has 64 GiB, so it cannot be written within the write timeout.
	long := slices.Repeat(net.Buffers{make([]byte, 1<<20)}, 1<<16)
	for name, expires := range map[string]bool{"timeout": false, "expired": true} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan struct{}, 1)
			expired := func() bool {
				select {
				case asked <- struct{}{}:
				default:
				}
				return expires
			}
			wrote := make(chan bool, 1)
			e, path := start(t, func(s *Session) { wrote <- s.Write(Reply{Pieces: slices.Clone(long), Expired: expired}) }, false)
			c := dial(t, path)
			io.Copy(io.Discard, c)
			if <-wrote {
				t.Error("the whole answer was written")
			}
			if len(asked) == 0 {
				t.Error("the write did not check whether the answer has expired")
			}
			waitUntil(t, func() bool { return e.Connections() == 0 })
		})
	}
}

// TestUnreadIsAnUpperLimit sends answers of many sizes. The estimate conn.unread must not be lower
// than the memory that the kernel uses for the answers. Otherwise isWritable could return true
// for a socket that is not writable.
func TestUnreadIsAnUpperLimit(t *testing.T) {
	checked := make(chan struct{})
	_, path := start(t, func(s *Session) {
		defer close(checked)
		for size := 1; size <= maxWrite; size++ {
			s.conn.unread = 0
			before := s.conn.unreadBytes()
			if n, err := s.conn.send([][]byte{make([]byte, size)}); n != size {
				t.Errorf("sent %d of %d bytes, %v", n, size, err)
				return
			}
			if used := s.conn.unreadBytes() - before; used > s.conn.unread {
				t.Errorf("%d bytes use %d bytes of memory, and the estimate is %d", size, used, s.conn.unread)
			}
			for s.conn.unreadBytes() > writableBytes { // until the client has read most of the answer
				time.Sleep(10 * time.Microsecond)
			}
			if !s.conn.isWritable() {
				t.Error("the socket is not writable, although the client has read most answers")
			}
		}
	}, false)
	c := dial(t, path)
	go io.Copy(io.Discard, c)
	<-checked
}
