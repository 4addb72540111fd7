package project

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/keyring"
)

var getLine = []byte(`{"op":"get","name":"A"}`)

// newLoadedProject returns a project whose allowlist contains the loaded secret A. Audit events
// are written to a file. The project has no rate limits.
func newLoadedProject(t testing.TB) *Project {
	t.Helper()
	log, err := audit.Open(audit.Config{Path: filepath.Join(t.TempDir(), "audit.log"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	k := keyring.New()
	push(t, k, "a value of 40 bytes, like a short token.")
	t.Cleanup(func() { k.Clear() })
	return New(Config{Name: "api", Audit: log, View: k.View(), Manifest: parseManifest(t, "A"), UIDs: []uint32{endpoint.Self().UID}})
}

// onSession calls run with the session of a real connection, and waits until run returns.
func onSession(t testing.TB, run func(*endpoint.Session)) {
	t.Helper()
	done := make(chan struct{})
	c, err := endpoint.Connect(func(s *endpoint.Session) {
		defer close(done)
		run(s)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-done
}

// BenchmarkAnswer measures the time in which the project creates the reply to a get. It does not
// measure reading the request and writing the reply.
func BenchmarkAnswer(b *testing.B) {
	p := newLoadedProject(b)
	onSession(b, func(s *endpoint.Session) {
		b.ReportAllocs()
		for b.Loop() {
			reply := p.answer(s, getLine)
			reply.Release()
		}
	})
}

// BenchmarkGet measures gets on one connection. The client sends each get after the answer to the
// previous one.
func BenchmarkGet(b *testing.B) { benchmarkGets(b, 1) }

// BenchmarkGetInFlight measures gets on one connection. The client sends 32 gets in one write, and
// then reads the 32 answers.
func BenchmarkGetInFlight(b *testing.B) { benchmarkGets(b, 32) }

func benchmarkGets(b *testing.B, inFlight int) {
	p := newLoadedProject(b)
	ended := make(chan struct{})
	c, err := endpoint.Connect(func(s *endpoint.Session) {
		defer close(ended)
		p.Serve(s)
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { // end the session before the log is closed, because the session records events
		c.Close()
		<-ended
	}()
	requests := bytes.Repeat(append(getLine, '\n'), inFlight)
	answers := bufio.NewReader(c)
	b.ReportAllocs()
	for n := 0; n < b.N; n += inFlight {
		if _, err := c.Write(requests); err != nil {
			b.Fatal(err)
		}
		for range inFlight {
			line, err := answers.ReadSlice('\n')
			if err == io.EOF || !bytes.HasPrefix(line, []byte(`{"ok":true`)) {
				b.Fatalf("the answer is %q, error %v", line, err)
			}
		}
	}
}
