package endpoint

import (
	"bufio"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func newIdleListeners(t *testing.T) *IdleListeners {
	t.Helper()
	idle, err := NewIdleListeners()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(idle.Close)
	return idle
}

// get sends a request on a new connection and waits for the answer.
func get(t *testing.T, path string) {
	t.Helper()
	c := dial(t, path)
	defer c.Close()
	io.WriteString(c, "{}\n")
	if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Errorf("the answer is %q, error %v", answer, err)
	}
}

// TestIdleEndpointsHaveNoGoroutines checks that endpoints without connections need no
// goroutines, before and after they have served a connection.
func TestIdleEndpointsHaveNoGoroutines(t *testing.T) {
	const endpoints = 50
	idle := newIdleListeners(t)
	before := runtime.NumGoroutine()
	var paths []string
	for range endpoints {
		_, path := startConfig(t, Config{Serve: answerOK, Idle: idle}, false)
		paths = append(paths, path)
	}
	for range 3 {
		waitUntil(t, func() bool { return runtime.NumGoroutine() < before+endpoints/2 })
		for _, path := range paths {
			get(t, path)
		}
	}
	waitUntil(t, func() bool { return runtime.NumGoroutine() < before+endpoints/2 })
}

// TestIdleListenerCanBeReplaced replaces the listener of an idle endpoint. The endpoint must
// serve connections on the new listener, and must close the old one.
func TestIdleListenerCanBeReplaced(t *testing.T) {
	e, old := start(t, answerOK, false)
	path := filepath.Join(filepath.Dir(old), "n")
	for range 3 {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		listener.SetUnlinkOnClose(false)
		e.ReplaceListener(listener)
		get(t, path)
		waitUntil(t, func() bool {
			c, err := net.Dial("unix", old)
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		if err := os.Rename(path, old); err != nil {
			t.Fatal(err)
		}
		get(t, old)
	}
}

// TestIdleListenerThatIsOpenElsewhere closes an idle endpoint whose listener the service
// manager has open, too. Another endpoint must then serve connections on the copy, although
// its file descriptor can have the same number.
func TestIdleListenerThatIsOpenElsewhere(t *testing.T) {
	idle := newIdleListeners(t)
	e, path := startConfig(t, Config{Serve: answerOK, Idle: idle}, false)
	e.config.Listener.SetUnlinkOnClose(false)
	for range 3 {
		kept, err := e.listener.File()
		if err != nil {
			t.Fatal(err)
		}
		defer kept.Close()
		e.StopAccepting()
		e.Close()
		l, err := net.FileListener(kept)
		if err != nil {
			t.Fatal(err)
		}
		e = New(Config{Listener: l.(*net.UnixListener), MaxConnections: 8, Serve: answerOK, Idle: idle, Log: e.config.Log})
		e.Start()
		defer e.Close()
		get(t, path)
	}
}

// TestEndpointsEndAtOnceWhileIdle checks that an idle endpoint does not delay the end of the
// broker. Close would wait for one second if it did not notice that the endpoint is idle.
func TestEndpointsEndAtOnceWhileIdle(t *testing.T) {
	for name, end := range map[string]func(*Endpoint){
		"Close": (*Endpoint).Close, "Drain": func(e *Endpoint) { e.Drain(t.Context(), false) },
		"Drain with the listener kept": func(e *Endpoint) { e.Drain(t.Context(), true) },
		"StopAccepting":                (*Endpoint).StopAccepting,
	} {
		e, path := start(t, answerOK, false)
		get(t, path)
		end(e)
		select {
		case <-e.ended():
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the endpoint did not end", name)
		}
	}
}
