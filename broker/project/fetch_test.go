package project

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/keyring"
	"github.com/keyhatch/keyhatch/manifest"
)

// A slowDisk is a writer that blocks. At the beginning of each write, it sends a value on the
// channel writing. Each write ends only after the test has closed the channel proceed.
type slowDisk struct{ writing, proceed chan struct{} }

func (d slowDisk) Write(p []byte) (int, error) {
	d.writing <- struct{}{}
	<-d.proceed
	return len(p), nil
}

// TestAnswerIsNotOlderThanItsEvent changes the secrets, the manifest, or the registration
// while the broker writes the required audit event of a get. The client must not get the old
// value of the secret.
func TestAnswerIsNotOlderThanItsEvent(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Project, *keyring.Keyring)
		want   string
	}{
		"push":         {func(_ *Project, k *keyring.Keyring) { push(t, k, "new") }, `"value":"new"`},
		"clear":        {func(_ *Project, k *keyring.Keyring) { k.Clear() }, `"code":"not_loaded"`},
		"revoked name": {func(p *Project, _ *keyring.Keyring) { p.ReplaceManifest(parseManifest(t, "B")) }, `"code":"denied"`},
		"unregister":   {func(p *Project, _ *keyring.Keyring) { p.End() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			disk := slowDisk{make(chan struct{}, 8), make(chan struct{})}
			log, err := audit.Open(audit.Config{Out: disk, Required: true, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			k := keyring.New()
			push(t, k, "old")
			p := New(Config{Name: "api", Audit: log, View: k.View(), Manifest: parseManifest(t, "A"), UIDs: []uint32{endpoint.Self().UID}})
			ended := make(chan struct{})
			c, err := endpoint.Connect(func(s *endpoint.Session) {
				defer close(ended)
				p.Serve(s)
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { // end the session before the log is closed, because the session records events
				c.Close()
				<-ended
			}()
			fmt.Fprintln(c, `{"op":"get","name":"A"}`)
			<-disk.writing
			test.change(p, k)
			close(disk.proceed)
			answer, _ := bufio.NewReader(c).ReadString('\n')
			if !strings.Contains(answer, test.want) || strings.Contains(answer, "old") {
				t.Errorf("the answer is %q, want %s", answer, test.want)
			}
		})
	}
}

// TestGetAllocatesNoMemory answers gets of an existing secret, while audit events are written to a
// file. The project must allocate no memory for an answer.
func TestGetAllocatesNoMemory(t *testing.T) {
	p := newLoadedProject(t)
	onSession(t, func(s *endpoint.Session) {
		for _, line := range []string{`{"op":"get","name":"A"}`, `{ "name": "A", "op": "get", "wait_ms": 0 }`} {
			request := []byte(line)
			if n := testing.AllocsPerRun(1000, func() {
				reply := p.answer(s, request)
				if !bytes.HasPrefix(reply.Line, []byte(`{"ok":true,"value":`)) {
					t.Errorf("the answer to %s is %s", request, reply.Line)
				}
				reply.Release()
			}); n != 0 {
				t.Errorf("the answer to %s needs %v allocations, want 0", request, n)
			}
		}
	})
}

func push(t testing.TB, k *keyring.Keyring, value string) {
	t.Helper()
	request, err := keyring.Parse(fmt.Appendf(nil, `{"op":"push-creds","secrets":{"A":%q}}`, value))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Push(request); err != nil {
		t.Fatal(err)
	}
}

func parseManifest(t testing.TB, name string) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse([]byte("schema_version: 1\nproject: api\nsecrets:\n  " + name + ":\n"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}
