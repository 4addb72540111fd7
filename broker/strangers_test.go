package broker

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TestStrangersCannotFillTheAudit: each is refused, and only some are recorded.
func TestStrangersCannotFillTheAudit(t *testing.T) {
	conns := make([]*net.UnixConn, 1000)
	for i := range conns {
		conns[i] = pair(t)
	}
	synctest.Test(t, func(t *testing.T) {
		var events bytes.Buffer
		a, err := OpenAudit("", &events, false, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		p := &project{server: &Server{audit: a}, name: "api", rates: newRates(0, 0)}
		for i, conn := range conns {
			if i%100 == 0 {
				time.Sleep(time.Second) // the bubble's
			}
			p.serve(&session{conn: conn, caller: caller{uid: 4321, pid: 1}})
		}
		a.Close()
		if n := strings.Count(events.String(), `"peer.refused"`); n < schema.StrangersRecorded+8 || n > schema.StrangersRecorded+11 {
			t.Errorf("%d events of %d strangers in 10 s", n, len(conns))
		}
	})
}

// pair returns one end of a connection that nobody reads at the other.
func pair(t *testing.T) *net.UnixConn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[1]) })
	file := os.NewFile(uintptr(fds[0]), "stranger")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}
