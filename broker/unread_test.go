package broker_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// unreadBytes returns the number of bytes that the broker has sent and the client has not
// read.
func unreadBytes(t *testing.T, c net.Conn) (n int) {
	t.Helper()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if controlErr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
	return n
}

// TestUnreadAnswersDelayLookup sends many requests and reads no answer. The broker must not
// look up a secret for an answer that it cannot send yet. Otherwise the broker would send an
// old secret after it has acknowledged a push, a clear, a reload, or an unregister.
func TestUnreadAnswersDelayLookup(t *testing.T) {
	const big = 9000 // while the client has not read an answer of this size, the broker's socket is not writable
	values := func(a string) map[schema.SecretName]schema.Value {
		return map[schema.SecretName]schema.Value{"A": {Text: a}, "BIG": {Text: strings.Repeat("x", big)}}
	}
	fewer := manifestText("api", "BIG")
	for name, change := range map[string]func(*client.Admin) error{
		"push": func(admin *client.Admin) error {
			_, err := admin.Push(t.Context(), pushLine(schema.PushRequest{Secrets: values("new")}))
			return err
		},
		"clear": func(admin *client.Admin) error { return admin.Clear(t.Context()) },
		"reload": func(admin *client.Admin) error {
			_, err := admin.Reload(t.Context(), schema.ReloadRequest{Name: "api", Manifest: &fewer})
			return err
		},
		"unregister": func(admin *client.Admin) error { return admin.Unregister(t.Context(), "api") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			s.register(t, "api", "A", "BIG")
			s.push(t, values(tripwire))
			admin := s.dialAdmin(t)
			c := connect(t, s.projectSocket("api"))
			if _, err := io.WriteString(c, `{"op":"get","name":"BIG"}`+"\n"+strings.Repeat(`{"op":"get","name":"A"}`+"\n", 200)); err != nil {
				t.Fatal(err)
			}
			waitUntil(t, func() bool { return unreadBytes(t, c.Conn) > big })
			if err := change(admin); err != nil {
				t.Fatal(err)
			}
			sent := unreadBytes(t, c.Conn)
			c.Conn.(*net.UnixConn).CloseWrite()
			answers, _ := io.ReadAll(c) // ignore the error, because the broker can close the connection
			if later := answers[sent:]; bytes.Contains(later, []byte(tripwire)) {
				t.Errorf("the broker sent an old secret after the acknowledgement: %.200s", later)
			}
		})
	}
}
