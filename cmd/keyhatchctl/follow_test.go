package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// TestFollowContinuesAfterLastEvent sends an events.missed and another event to events --follow,
// and closes the connection. The broker does not restart. The command must connect again, and
// must request only the events after the last event other than events.missed. Then the test
// cancels the command, which must end.
func TestFollowContinuesAfterLastEvent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	requests := make(chan string, 2)
	serve := func(answer string) { // serves one connection
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		lines := bufio.NewScanner(c)
		lines.Scan() // reads the request ping
		fmt.Fprintln(c, pingResponse)
		lines.Scan()
		requests <- lines.Text()
		fmt.Fprintln(c, answer)
		if answer == "" {
			cancel()
			io.Copy(io.Discard, c) // waits until the command closes the connection
		}
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		serve(`{"ok":true,"instance_id":"x","recent":1}
{"time":"2026-01-31T08:15:09Z","event":"events.missed","count":3}
{"time":"2026-01-31T08:15:00.123456789Z","event":"broker.started","protocol_version":2}`)
		serve("")
	}()
	var out, messages bytes.Buffer
	c := newRootCommand()
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetOut(&out)
	c.SetErr(&messages)
	c.SetArgs([]string{"--socket", path, "events", "--follow", "--json"})
	if err := c.ExecuteContext(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want that of the context", err)
	}
	<-served
	if request := <-requests; request != `{"op":"events"}` {
		t.Errorf("the first request is %s", request)
	}
	if request := <-requests; request != `{"op":"events","since":"2026-01-31T08:15:00.123456789Z"}` {
		t.Errorf("the second request is %s", request)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 2 {
		t.Errorf("the command printed\n%s", out.String())
	}
	if want := "keyhatchctl: the connection to the broker ended; trying to connect again\n"; messages.String() != want {
		t.Errorf("the messages are %q, want %q", messages.String(), want)
	}
}
