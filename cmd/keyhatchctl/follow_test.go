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
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// followStreams runs events --follow --json with a broker that answers each events request with the
// next of the streams, and then closes the connection. After the last stream, followStreams cancels
// the command, which must end. followStreams returns the output and the messages of the command,
// and all events requests.
func followStreams(t *testing.T, streams ...string) (out, messages string, requests []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	served := make(chan struct{})
	go func() { // the goroutine ends when the command has ended
		defer close(served)
		for i := range len(streams) + 1 {
			c, err := l.Accept()
			if err != nil {
				return
			}
			lines := bufio.NewScanner(c)
			lines.Scan() // reads the request ping
			fmt.Fprintln(c, pingResponse)
			lines.Scan()
			requests = append(requests, lines.Text())
			if i < len(streams) {
				fmt.Fprintln(c, streams[i])
			} else {
				cancel()
				io.Copy(io.Discard, c) // waits until the command closes the connection
			}
			c.Close()
		}
	}()
	var stdout, stderr bytes.Buffer
	c := newRootCommand()
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetOut(&stdout)
	c.SetErr(&stderr)
	c.SetArgs([]string{"--socket", path, "events", "--follow", "--json"})
	if err := c.ExecuteContext(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want that of the context", err)
	}
	l.Close()
	<-served
	return stdout.String(), stderr.String(), requests
}

// TestFollowContinuesAfterLastEvent sends an events.missed and another event to events --follow,
// and closes the connection. The broker does not restart. The command must connect again, and
// must request only the events after the last event other than events.missed.
func TestFollowContinuesAfterLastEvent(t *testing.T) {
	out, messages, requests := followStreams(t, `{"ok":true,"instance_id":"x","recent":1}
{"time":"2026-01-31T08:15:09Z","event":"events.missed","count":3}
{"time":"2026-01-31T08:15:00.123456789Z","event":"broker.started","protocol_version":2}`)
	if want := []string{`{"op":"events"}`, `{"op":"events","since":"2026-01-31T08:15:00.123456789Z"}`}; !slices.Equal(requests, want) {
		t.Errorf("the requests are %q, want %q", requests, want)
	}
	if lines := strings.Count(out, "\n"); lines != 2 {
		t.Errorf("the command printed\n%s", out)
	}
	if want := "keyhatchctl: the connection to the broker ended; trying to connect again\n"; messages != want {
		t.Errorf("the messages are %q, want %q", messages, want)
	}
}

// TestFollowReportsEventsLostWhileDisconnected closes the connection of events --follow several times.
// The second stream begins with an event that the first stream contained, the third stream begins
// after events that no stream contained, and the fourth stream is that of another broker. The
// command must print each event once, and the number of lost events.
func TestFollowReportsEventsLostWhileDisconnected(t *testing.T) {
	stream := func(instance string, first int, seconds ...int) string {
		text := fmt.Sprintf(`{"ok":true,"instance_id":"%s","recent":%d,"first":%d}`, instance, len(seconds), first)
		for _, second := range seconds {
			text += fmt.Sprintf("\n"+`{"time":"2026-01-31T08:15:%02dZ","event":"secrets.cleared","secret_count":1}`, second)
		}
		return text
	}
	out, messages, _ := followStreams(t, stream("x", 5, 5, 6), stream("x", 6, 6, 7), stream("x", 18, 18), stream("y", 4, 24))
	var got []string
	for line := range strings.Lines(out) {
		e, err := parseEvent([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if e.name == schema.EventEventsMissed {
			got = append(got, fmt.Sprint("missed ", e.count))
		} else {
			got = append(got, fmt.Sprint(e.time.Second()))
		}
	}
	if want := "5, 6, 7, missed 10, 18, missed 3, 24"; strings.Join(got, ", ") != want {
		t.Errorf("the command printed %v, want %s", got, want)
	}
	if !strings.Contains(messages, "the broker has restarted, and an unknown number of events before the restart can be missing\n") {
		t.Errorf("the messages are %q", messages)
	}
}
