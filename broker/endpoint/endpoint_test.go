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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TestMain makes the tests ignore the same signals as the broker. Otherwise the tests of
// interruptingCloser could pass with a signal that does not interrupt a thread of the broker.
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

// startConfig is like start, but uses a given Config. It sets the listener and the log of the
// Config. If the Config has no maximum number of connections, the maximum is 8.
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
	config.Listener, config.Log = listener, slog.New(slog.DiscardHandler)
	if config.MaxConnections == 0 {
		config.MaxConnections = 8
	}
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

// TestRefusedClientCanSendItsRequest refuses clients that send their request after the
// refusal has arrived. Sending the request must succeed, and the client must get the
// refusal.
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

// TestRefusedClientsLeaveRoomForOthers opens as many connections as an endpoint allows. The
// endpoint refuses these clients, and they do not read the refusals. A client that may use the
// socket must still be served.
func TestRefusedClientsLeaveRoomForOthers(t *testing.T) {
	const maxConnections = maxRefusals + 4
	var allowed atomic.Bool
	var refused atomic.Int64
	e, path := startConfig(t, Config{MaxConnections: maxConnections, Serve: func(s *Session) {
		if allowed.Load() {
			answerOK(s)
			return
		}
		s.WriteRefusal(Refuse(schema.CodePeerUnexpected, "no"), nil)
		refused.Add(1)
	}}, false)
	for range maxConnections {
		fmt.Fprintln(dial(t, path), "{}")
	}
	// Wait for the last refusal first. After this refusal, the number of connections only
	// decreases, until it is maxRefusals.
	waitUntil(t, func() bool { return refused.Load() == maxConnections })
	waitUntil(t, func() bool { return e.Connections() == maxRefusals })
	allowed.Store(true)
	c := dial(t, path)
	fmt.Fprintln(c, "{}")
	if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || answer != "{\"ok\":true}\n" {
		t.Errorf("the answer is %q, error %v", answer, err)
	}
}

// TestDrainEndsChattyConnection drains an endpoint while a client sends requests without a pause.
// Drain must stop reading after a fixed time. Otherwise, Drain would never return.
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

// TestAcceptErrorDoesNotEndLoop starts an endpoint with a socket that does not listen, so each
// accept fails. The accept loop must try again and again, and log the error.
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
	// The second message shows that the loop has tried again. It arrives after one second,
	// because the endpoint logs at most one such message per second.
	for range 2 {
		<-logged
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }
