package endpoint

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TestNonReadersAreEnded shuts down the reading side of an idle client, and of a client that
// waits for an answer and has begun its next request. The endpoint must end both connections, and
// keep other connections open. The endpoint must also end the connection of a waiting client that
// shuts down its writing side.
func TestNonReadersAreEnded(t *testing.T) {
	waiting := make(chan struct{}, 8)
	handler := okHandler()
	e, path := start(t, func(s *Session) {
		handler := handler
		handler.Answer = func(line []byte) Reply {
			if string(line) != "wait" {
				return Answer(schema.OKResponse{OK: true})
			}
			waiting <- struct{}{}
			<-s.Gone()
			return HangUp()
		}
		s.Run(handler)
	}, false)

	stays := dial(t, path)
	fmt.Fprint(stays, "{}\n")
	bufio.NewReader(stays).ReadString('\n')
	halfClosed := dial(t, path)
	fmt.Fprint(halfClosed, "wait\n")
	<-waiting
	idle, inWait := dial(t, path), dial(t, path)
	fmt.Fprint(inWait, "wait\n{")
	<-waiting
	waitUntil(t, func() bool { return e.Connections() == 4 })

	idle.CloseRead()
	inWait.CloseRead()
	waitUntil(t, func() bool { return e.Connections() == 2 })
	fmt.Fprint(stays, "{}\n")
	if answer, err := bufio.NewReader(stays).ReadString('\n'); err != nil || answer != "{\"ok\":true}\n" {
		t.Errorf("the answer of another connection is %q, %v", answer, err)
	}
	halfClosed.CloseWrite()
	waitUntil(t, func() bool { return e.Connections() == 1 })
}

// TestUnreadConnectionLeavesPoller sends requests, shuts down the client's writing side, and
// does not read the answers. The connection must leave the poller. Otherwise, each call of
// shutdown(2) by the client would wake the broker.
func TestUnreadConnectionLeavesPoller(t *testing.T) {
	var inode atomic.Uint64
	e, path := start(t, func(s *Session) {
		s.conn.control(func(fd int) {
			var st unix.Stat_t
			unix.Fstat(fd, &st)
			inode.Store(st.Ino)
		})
		if !isPolled(t, inode.Load()) {
			t.Error("isPolled does not find an open connection in the poller, so this test proves nothing")
		}
		answerOK(s)
	}, false)
	c := dial(t, path)
	fmt.Fprint(c, strings.Repeat("{}\n", 10))
	waitUntil(t, func() bool { return unsent(c) == 0 }) // until the broker has read all requests
	c.CloseWrite()
	waitUntil(t, func() bool { return inode.Load() != 0 && !isPolled(t, inode.Load()) })
	if n := e.Connections(); n != 1 {
		t.Errorf("%d connections are counted, want 1", n)
	}
	if answers, err := io.ReadAll(c); err != nil || strings.Count(string(answers), "\n") != 10 {
		t.Errorf("read %q, %v", answers, err)
	}
	waitUntil(t, func() bool { return e.Connections() == 0 })
}

// isPolled reports whether an epoll file descriptor of this process contains the file with
// the given inode number (proc_pid_fdinfo(5)).
func isPolled(t *testing.T, inode uint64) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // fails if the file descriptor was closed in the meantime
		if strings.Contains(string(text), fmt.Sprintf("ino:%x ", inode)) {
			return true
		}
	}
	return false
}

// TestBlockedAnswerLeavesPoller requests a large answer and does not read it yet. The connection
// must leave the poller. The client shuts down its writing side either before the answer or while
// the answer is blocked. The whole answer must still arrive.
func TestBlockedAnswerLeavesPoller(t *testing.T) {
	answer := strings.Repeat("x", 1<<20)
	for name, endFirst := range map[string]bool{"ended before the answer": true, "ended while the answer is blocked": false} {
		t.Run(name, func(t *testing.T) {
			var session atomic.Pointer[Session]
			handler := okHandler()
			handler.Answer = func([]byte) Reply { return Reply{Pieces: net.Buffers{[]byte(answer), []byte("\n")}} }
			e, path := start(t, func(s *Session) {
				session.Store(s)
				s.Run(handler)
			}, false)
			c := dial(t, path)
			fmt.Fprint(c, "{}\n")
			if endFirst {
				c.CloseWrite()
			}
			waitUntil(t, func() bool { return session.Load() != nil && !session.Load().conn.inPoller() })
			c.CloseWrite()
			got, err := io.ReadAll(c)
			if err != nil || string(got) != answer+"\n" {
				t.Errorf("read %d bytes, %v, want %d", len(got), err, len(answer)+1)
			}
			waitUntil(t, func() bool { return e.Connections() == 0 })
		})
	}
}

// TestDribblingClientLeavesPoller sends a request in single bytes. Each byte would wake
// the broker, so the connection must leave the poller. The request must still be answered.
func TestDribblingClientLeavesPoller(t *testing.T) {
	for _, mustPeek := range []bool{false, true} {
		var session atomic.Pointer[Session]
		e, path := start(t, func(s *Session) { session.Store(s); answerOK(s) }, mustPeek)
		c := dial(t, path)
		lines := bufio.NewReader(c)
		for round := range 2 {
			for session.Load() == nil || session.Load().conn.inPoller() {
				if _, err := c.Write([]byte(" ")); err != nil {
					t.Fatal(err)
				}
				// Wait, so that the broker needs one read for each byte.
				waitUntil(t, func() bool { return unsent(c) == 0 })
			}
			fmt.Fprint(c, "     {}\n")
			if answer, err := lines.ReadString('\n'); err != nil || answer != "{\"ok\":true}\n" {
				t.Errorf("the answer in round %d is %q, error %v", round, answer, err)
			}
		}
		c.Close()
		waitUntil(t, func() bool { return e.Connections() == 0 })
	}
}

// TestLargeRequestStaysInPoller sends a request of 1 MiB in many parts. Each part wakes the
// broker, but the connection must stay in the poller, because the broker accepts more events for a
// large request.
func TestLargeRequestStaysInPoller(t *testing.T) {
	var session atomic.Pointer[Session]
	_, path := start(t, func(s *Session) {
		session.Store(s)
		handler := okHandler()
		handler.MaxLine = 2 << 20
		s.Run(handler)
	}, false)
	c := dial(t, path)
	for range 1 << 8 {
		if _, err := c.Write(bytes.Repeat([]byte(" "), 4<<10)); err != nil {
			t.Fatal(err)
		}
		// Wait, so that the broker needs one read for each part.
		waitUntil(t, func() bool { return unsent(c) == 0 })
	}
	fmt.Fprint(c, "{}\n")
	if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || answer != "{\"ok\":true}\n" {
		t.Errorf("the answer is %q, error %v", answer, err)
	}
	if !session.Load().conn.inPoller() {
		t.Error("the connection has left the poller")
	}
}

// unsent returns the number of bytes that the client has sent and the broker has not read
// (SIOCOUTQ of the client's socket, unix(7)).
func unsent(client *net.UnixConn) (n int) {
	if raw, err := client.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	}
	return n
}

// TestWaitingConnectionLeavesPoller sends single bytes while the broker waits for a secret or for
// the request limit. Each byte would wake the broker, so the connection must leave the poller.
// The broker must still notice that the client closes the connection. If the broker waits for a
// secret, it must first still answer the request.
func TestWaitingConnectionLeavesPoller(t *testing.T) {
	for name, wait := range map[string]func(s *Session, proceed chan struct{}) bool{
		"for a secret": func(s *Session, proceed chan struct{}) bool {
			select {
			case <-proceed:
				return true
			case <-s.Gone():
				return false
			}
		},
		"for the request limit": func(s *Session, _ chan struct{}) bool { return s.pause(time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			session, proceed, gone := make(chan *Session, 1), make(chan struct{}), make(chan struct{}, 1)
			handler := okHandler()
			_, path := start(t, func(s *Session) {
				session <- s
				handler := handler
				handler.Answer = func([]byte) Reply {
					if wait(s, proceed) {
						return Answer(schema.OKResponse{OK: true})
					}
					gone <- struct{}{}
					return HangUp()
				}
				s.Run(handler)
			}, false)
			c := dial(t, path)
			fmt.Fprint(c, "{}\n")
			s := <-session
			waitUntil(t, func() bool { return unsent(c) == 0 })
			waitUntil(t, func() bool {
				if _, err := c.Write([]byte(" ")); err != nil {
					t.Fatal(err)
				}
				return !s.conn.inPoller()
			})
			if name == "for a secret" {
				proceed <- struct{}{}
				if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || answer != "{\"ok\":true}\n" {
					t.Errorf("the answer is %q, error %v", answer, err)
				}
				fmt.Fprint(c, "{}\n")
			}
			c.Close()
			<-gone
		})
	}
}

// TestBlockedWriteKeepsWatch writes 1 MiB while AwaitInput waits for input. The write blocks, so
// the connection leaves the poller. After the client has read the answer, AwaitInput must still
// notice that the client sends a byte.
func TestBlockedWriteKeepsWatch(t *testing.T) {
	blocked := make(chan *Session, 1)
	ended := make(chan error, 1)
	_, path := start(t, func(s *Session) {
		handler := okHandler()
		handler.Answer = func([]byte) Reply {
			input, stop := s.AwaitInput()
			defer stop()
			blocked <- s
			if !s.Write(Reply{Pieces: net.Buffers{make([]byte, 1<<20)}}) {
				t.Error("the write failed, although the client reads")
			}
			ended <- <-input
			return HangUp()
		}
		s.Run(handler)
	}, false)
	c := dial(t, path)
	fmt.Fprint(c, "{}\n")
	s := <-blocked
	waitUntil(t, func() bool { return !s.conn.inPoller() })
	if _, err := io.ReadFull(c, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "x")
	if err := <-ended; err != nil {
		t.Errorf("the session reports the error %v instead of the input", err)
	}
}

// TestSystemCallsOfOneEndpointAreLimited makes maxSystemCalls system calls of one endpoint hang.
// Until these calls end, the endpoint must not read a request, but another endpoint must still
// answer.
func TestSystemCallsOfOneEndpointAreLimited(t *testing.T) {
	e, path := start(t, answerOK, false)
	_, otherPath := start(t, answerOK, false)
	ask := func(c *net.UnixConn) {
		t.Helper()
		fmt.Fprint(c, "{}\n")
		if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || answer != "{\"ok\":true}\n" {
			t.Fatalf("the answer is %q, error %v", answer, err)
		}
	}
	c := dial(t, path)
	ask(c)
	release := make(chan struct{})
	var hanging sync.WaitGroup
	for range maxSystemCalls {
		started := make(chan struct{})
		hanging.Go(func() { e.calls.do(func() { close(started); <-release }) })
		<-started
	}
	fmt.Fprint(c, "{}\n")
	ask(dial(t, otherPath))
	if unsent(c) == 0 {
		t.Error("the endpoint has read a request")
	}
	close(release)
	hanging.Wait()
	if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || answer != "{\"ok\":true}\n" {
		t.Errorf("afterwards, the answer is %q, error %v", answer, err)
	}
}
