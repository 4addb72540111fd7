package endpoint

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TestMain ignores the same signals as the broker. Otherwise the tests of the closer could
// pass with a signal that does not interrupt a thread of the broker.
func TestMain(m *testing.M) {
	if err := secmem.Harden(); err != nil {
		panic(err)
	}
	m.Run()
}

// answerOK answers every request with {"ok":true}.
func answerOK(s *Session) { s.Run(okHandler()) }

func okHandler() Handler {
	return Handler{
		MaxLine:       schema.MaxRequest,
		Answer:        func([]byte) Reply { return Answer(schema.OKResponse{OK: true}) },
		AnswerTooLong: func() Reply { return RefuseTooLong(schema.MaxRequest) },
		AnswerLimited: func(retryAfter int) Reply { return RefuseFor(retryAfter, schema.CodeRateLimited, "limited") },
	}
}

// start serves an endpoint until the test ends. If mustPeek is true, the endpoint works as
// on a kernel that cannot refuse passed file descriptors.
func start(t *testing.T, serve func(*Session), mustPeek bool) (e *Endpoint, path string) {
	t.Helper()
	return startConfig(t, Config{Serve: serve}, mustPeek)
}

// startConfig is like start, but uses a given Config. It sets the listener, the maximum
// number of connections, and the log of the Config.
func startConfig(t *testing.T, config Config, mustPeek bool) (e *Endpoint, path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh") // short, because a socket path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	config.Listener, config.MaxConnections, config.Log = listener, 8, slog.New(slog.DiscardHandler)
	if mustPeek {
		e = newEndpoint(config)
	} else {
		e = New(config)
	}
	e.Start()
	t.Cleanup(func() { e.Close(); os.RemoveAll(dir) })
	return e, path
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func waitUntil(t *testing.T, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the condition did not become true within 10 seconds")
		}
	}
}

// lingeringSocket returns a TCP socket whose last close blocks for an hour. The function
// release ends a blocked close.
func lingeringSocket(t *testing.T) (fd int, release func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sender, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { receiver.Close() })
	sender.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for err = nil; err == nil; { // until the buffers of both sides are full
		_, err = sender.Write(make([]byte, 1<<20))
	}
	sender.(*net.TCPConn).SetLinger(3600)
	file, err := sender.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	fd, err = unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	// All file descriptors refer to the same socket, so only the last close blocks.
	file.Close()
	sender.Close()
	return fd, func() { receiver.(*net.TCPConn).SetLinger(0); receiver.Close() }
}

// passDescriptor sends data together with the file descriptor fd, and then closes fd. flags
// can be MSG_OOB. If sending fails, passDescriptor calls release, because closing fd would
// otherwise block.
func passDescriptor(c *net.UnixConn, data string, fd, flags int, release func()) error {
	defer unix.Close(fd)
	raw, err := c.SyscallConn()
	if err == nil {
		controlErr := raw.Control(func(socket uintptr) {
			err = unix.Sendmsg(int(socket), []byte(data), unix.UnixRights(fd), nil, flags)
		})
		if err == nil {
			err = controlErr
		}
	}
	if err != nil {
		release()
	}
	return err
}

// kernelCanRefuse reports whether the kernel has the option SO_PASSRIGHTS.
func kernelCanRefuse(t *testing.T) bool {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS)
	return err != unix.ENOPROTOOPT
}

// TestLingeringSocketBlocksPlainRead checks that a plain read blocks if a lingering socket
// was passed with the data. If the read did not block, the test
// TestPassedDescriptorsAreRefused would prove nothing.
func TestLingeringSocketBlocksPlainRead(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	file := os.NewFile(uintptr(fds[0]), "sender")
	sender, err := net.FileConn(file)
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	fd, release := lingeringSocket(t)
	if err := passDescriptor(sender.(*net.UnixConn), "x", fd, 0, release); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() { // release ends this goroutine
		defer close(read)
		unix.Read(fds[1], make([]byte, 1))
	}()
	select {
	case <-read:
		t.Error("a plain read does not block, so TestPassedDescriptorsAreRefused proves nothing")
	case <-time.After(200 * time.Millisecond):
	}
	release()
	<-read
}

// TestPassedDescriptorsAreRefused passes file descriptors whose close would block. It passes
// them within a line, with a complete line, with two lines, and with out-of-band data. The
// broker must not block.
func TestPassedDescriptorsAreRefused(t *testing.T) {
	for _, mustPeek := range []bool{true, false} {
		serves := map[string]func(*Session){
			"request": answerOK,
			"refused": func(s *Session) { s.WriteRefusal(Refuse(schema.CodePeerUnexpected, "no"), nil) },
			"no read": func(*Session) {},
		}
		for name, serve := range serves {
			t.Run(fmt.Sprintf("%s, must peek %v", name, mustPeek), func(t *testing.T) {
				if !mustPeek && !kernelCanRefuse(t) {
					t.Skip("this kernel is older than Linux 6.16")
				}
				e, path := start(t, serve, mustPeek)
				for _, sent := range []struct {
					data  string
					flags int
				}{{"x", 0}, {"{}\n", 0}, {"{}\n{}", 0}, {"x", unix.MSG_OOB}} {
					c := dial(t, path)
					if name != "no read" {
						fmt.Fprint(c, "{}\n{") // the file descriptor arrives within the second line
					}
					fd, release := lingeringSocket(t)
					defer release()
					err := passDescriptor(c, sent.data, fd, sent.flags, release)
					if !mustPeek && err == nil {
						t.Error("the kernel accepted a file descriptor, although the broker told it to refuse them")
					}
					c.CloseWrite()
					// Only an endpoint that reads the request can answer with an error.
					answers, _ := io.ReadAll(c)
					if name == "request" && mustPeek && !bytes.Contains(answers, []byte("a client must not pass file descriptors")) {
						t.Errorf("the answers do not report the passed file descriptor: %s", answers)
					}
					c.Close()
				}
				waitUntil(t, func() bool { return e.Connections() == 0 })
				e.Close()
			})
		}
	}
}

// TestUnreadAnswersCount sends requests and does not read the answers. Each connection must
// stay counted until its client reads the answers or closes the connection.
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

// TestUnreadAnswersAreLimitedInAll sets a high number of connections in all endpoints. An
// endpoint whose clients do not read must then refuse new connections. Another endpoint must
// still accept connections.
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
	var unread []*net.UnixConn
	for range 4 {
		unread = append(unread, dial(t, path))
	}
	// The endpoint could refuse connections that it accepts after the requests below.
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

// TestRefusedClientCanSendItsRequest refuses clients that send their request after the
// refusal has arrived.
func TestRefusedClientCanSendItsRequest(t *testing.T) {
	e, path := start(t, func(s *Session) { s.WriteRefusal(Refuse(schema.CodePeerUnexpected, "no"), nil) }, false)
	for range 20 {
		waitUntil(t, func() bool { return e.Connections() == 0 })
		c := dial(t, path)
		lines := bufio.NewReader(c)
		if _, err := lines.Peek(1); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintln(c, "{}"); err != nil {
			t.Fatalf("sending the request: %v", err)
		}
		if answer, err := lines.ReadString('\n'); err != nil || !strings.Contains(answer, "peer_unexpected") {
			t.Fatalf("the refusal is %q, %v", answer, err)
		}
	}
}

// TestDrainEndsChattyConnection drains while a client sends requests without a pause. Drain
// must stop reading after a fixed time. Otherwise, Drain would never return.
func TestDrainEndsChattyConnection(t *testing.T) {
	e, path := start(t, answerOK, false)
	c := dial(t, path)
	var clients sync.WaitGroup
	first := make(chan struct{})
	clients.Go(func() {
		for {
			if _, err := fmt.Fprint(c, strings.Repeat("{}\n", 100)); err != nil {
				return
			}
		}
	})
	clients.Go(func() {
		lines := bufio.NewReader(c)
		lines.ReadString('\n')
		close(first)
		io.Copy(io.Discard, lines)
	})
	<-first
	e.Drain(context.Background(), false)
	clients.Wait()
}

// TestAcceptErrorDoesNotEndLoop makes every accept fail. The loop must try again, and
// log the error.
func TestAcceptErrorDoesNotEndLoop(t *testing.T) {
	logged := make(chan struct{}, 100)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) // this socket does not listen
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	listener := l.(*net.UnixListener)
	e := New(Config{Listener: listener, MaxConnections: 1, Serve: answerOK, Log: slog.New(slog.NewTextHandler(writerFunc(func(line []byte) {
		if bytes.Contains(line, []byte("cannot accept")) {
			logged <- struct{}{}
		}
	}), nil))})
	e.Start()
	defer e.Close()
	for range 2 { // the endpoint logs at most one message per second
		<-logged
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

// TestLongRequestsCountAsSeveral sends two long requests. The second request must exceed the
// limit of 10 requests, because each of the long requests counts as 10.
func TestLongRequestsCountAsSeveral(t *testing.T) {
	handler := okHandler()
	handler.Limit = NewLimiter(0.001, 10) // 10 requests at once
	_, path := start(t, func(s *Session) { s.Run(handler) }, false)
	c := dial(t, path)
	lines := bufio.NewReader(c)
	for i, want := range []string{`"ok":true`, "rate_limited"} {
		fmt.Fprintln(c, strings.Repeat("x", 9*requestUnit))
		if answer, err := lines.ReadString('\n'); err != nil || !strings.Contains(answer, want) {
			t.Errorf("the answer to request %d is %s, error %v, want %s", i, answer, err, want)
		}
	}
}

// TestNonReadersAreEnded shuts down the reading side of an idle client, and of a client that
// waits for an answer. The endpoint must end both connections. Other connections must stay
// open.
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
	waitUntil(t, func() bool { return unsent(c) == 0 }) // until the session has begun
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
		text, _ := os.ReadFile(file) // fails if the file descriptor was closed since
		if strings.Contains(string(text), fmt.Sprintf("ino:%x ", inode)) {
			return true
		}
	}
	return false
}

// TestBlockedAnswerLeavesPoller requests a large answer and does not read it yet. The
// connection must leave the poller. The client can shut down its writing side before or
// after that. The whole answer must still arrive.
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

// unsent returns the number of bytes that the client has sent and the broker has not read
// (SIOCOUTQ of the client's socket, unix(7)).
func unsent(client *net.UnixConn) (n int) {
	if raw, err := client.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	}
	return n
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

// TestResponsesCount requests two large responses. The second request must exceed the limit
// of 10 requests, because a large response counts as several requests.
func TestResponsesCount(t *testing.T) {
	handler := okHandler()
	handler.Limit = NewLimiter(0.001, 10) // 10 requests at once
	handler.Answer = func([]byte) Reply { return Reply{Pieces: net.Buffers{make([]byte, 9*responseUnit), []byte("\n")}} }
	_, path := start(t, func(s *Session) { s.Run(handler) }, false)
	c := dial(t, path)
	lines := bufio.NewReader(c)
	for i, limited := range []bool{false, true} {
		fmt.Fprintln(c, "{}")
		if answer, err := lines.ReadString('\n'); err != nil || strings.Contains(answer, "rate_limited") != limited {
			t.Errorf("the answer to request %d has %d bytes, error %v, want rate_limited: %v", i, len(answer), err, limited)
		}
	}
}

// TestAbortedResponsesCount requests a large response and closes the connection before it has
// read the response. The response must count as if the client had read it.
func TestAbortedResponsesCount(t *testing.T) {
	handler := okHandler()
	handler.Limit = NewLimiter(0.001, 10) // 10 requests at once
	handler.Answer = func([]byte) Reply { return Reply{Pieces: net.Buffers{make([]byte, 9*responseUnit), []byte("\n")}} }
	e, path := start(t, func(s *Session) { s.Run(handler) }, false)
	c := dial(t, path)
	fmt.Fprintln(c, "{}")
	if _, err := io.ReadFull(c, make([]byte, 8*responseUnit)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	waitUntil(t, func() bool { return e.Connections() == 0 })
	if wait, _ := handler.Limit.Reserve(1); wait == 0 {
		t.Error("the next request need not wait, so the aborted response did not count")
	}
}

// TestIncompleteLinesCount sends lines that the broker cannot answer with a result, because a
// line is too long or has no end. The broker has read these lines, so their length must
// count.
func TestIncompleteLinesCount(t *testing.T) {
	for name, line := range map[string]string{
		"too long": strings.Repeat("x", 2*schema.MaxRequest) + "\n",
		"no end":   strings.Repeat("x", 9*requestUnit),
	} {
		handler := okHandler()
		handler.Limit = NewLimiter(0.001, 9) // 9 requests at once
		e, path := start(t, func(s *Session) { s.Run(handler) }, false)
		c := dial(t, path)
		fmt.Fprint(c, line)
		c.CloseWrite()
		if _, err := io.ReadAll(c); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, func() bool { return e.Connections() == 0 })
		if wait, _ := handler.Limit.Reserve(1); wait == 0 {
			t.Errorf("%s: the next request need not wait, so the length of the line did not count", name)
		}
	}
}

// TestSlowWriteEnds writes a large answer to a client that reads all the time. The write must
// end when the write timeout is over or the answer has expired, although the client reads
// something between all checks.
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

// TestWaitingConnectionLeavesPoller sends single bytes while the broker waits before it
// answers the previous request. Each byte would wake the broker, so the connection must leave
// the poller. The broker must still answer the requests, and notice that the client leaves.
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
			for s.conn.inPoller() {
				before := s.conn.wakes.Load()
				if _, err := c.Write([]byte(" ")); err != nil {
					t.Fatal(err)
				}
				waitUntil(t, func() bool { return s.conn.wakes.Load() > before || !s.conn.inPoller() })
			}
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

// TestBlockedWriteKeepsWatch writes lines during a watch until the write blocks. The
// connection leaves the poller while another goroutine waits for input. The watch must
// continue after the client has read the lines.
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

// TestPiecesCount sends a line of less than requestUnit bytes in many pieces. The line must
// count as several requests.
func TestPiecesCount(t *testing.T) {
	var session atomic.Pointer[Session]
	handler := okHandler()
	handler.Limit = NewLimiter(0.001, 10) // 10 requests at once
	_, path := start(t, func(s *Session) { session.Store(s); s.Run(handler) }, false)
	c := dial(t, path)
	for session.Load() == nil || session.Load().conn.inPoller() {
		fmt.Fprint(c, " ")
		waitUntil(t, func() bool { return unsent(c) == 0 })
	}
	fmt.Fprintln(c, strings.Repeat(" ", requestUnit/2))
	if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(answer, "rate_limited") {
		t.Errorf("the answer is %q, error %v, want rate_limited", answer, err)
	}
}

// TestRefusedRequestsCount refuses a client that sends a long request. The broker reads the
// request, so its length must count.
func TestRefusedRequestsCount(t *testing.T) {
	limit := NewLimiter(0.001, 10) // 10 requests at once
	e, path := start(t, func(s *Session) { s.WriteRefusal(Refuse(schema.CodePeerUnexpected, "no"), limit) }, false)
	c := dial(t, path)
	fmt.Fprintln(c, strings.Repeat(" ", 9*requestUnit))
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return e.Connections() == 0 })
	if wait, _ := limit.Reserve(1); wait == 0 {
		t.Error("the next request need not wait, so the length of the refused request did not count")
	}
}

// TestSystemCallsOfOneEndpointAreLimited lets all allowed system calls of an endpoint hang.
// The endpoint must then make no more system calls for its connections, and another endpoint
// must not be affected.
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

// TestPassedDescriptorsCount passes a file descriptor. The broker then needs time to close the
// passed file, so the connection must count as many requests.
func TestPassedDescriptorsCount(t *testing.T) {
	limit := NewLimiter(0.001, descriptorsCost) // descriptorsCost requests at once
	handler := okHandler()
	handler.Limit = limit
	for name, serve := range map[string]func(*Session){
		"allowed": func(s *Session) { s.Run(handler) },
		"refused": func(s *Session) { s.WriteRefusal(Refuse(schema.CodePeerUnexpected, "no"), limit) },
	} {
		*limit = Limiter{perSecond: limit.perSecond, burst: limit.burst, units: limit.burst}
		e, path := start(t, serve, true)
		c := dial(t, path)
		fd, release := lingeringSocket(t)
		defer release()
		if err := passDescriptor(c, "{}", fd, 0, release); err != nil {
			t.Fatal(err)
		}
		c.CloseWrite()
		io.ReadAll(c)
		waitUntil(t, func() bool { return e.Connections() == 0 })
		if wait, _ := limit.Reserve(1); wait == 0 {
			t.Errorf("%s: the next request need not wait", name)
		}
	}
}
