package endpoint

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fillAdmissions adds one unauthorized connection for each uid. The clients send nothing.
func fillAdmissions(t *testing.T, uids []uint32) *admissions {
	t.Helper()
	a := &admissions{maxUnauthorized: len(uids), maxAuthorized: 1}
	for _, uid := range uids {
		if c, _ := newConnPair(t); a.add(c, uid) == nil {
			t.Fatal("there is no space for a connection")
		}
	}
	return a
}

// newConnPair returns one end of a connection, and the descriptor of the client's end. Both stay open
// until the end of the test.
func newConnPair(t *testing.T) (c *conn, client int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[1]) })
	ours, err := connOf(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	if c, err = newConn(ours, new(systemCalls)); err != nil {
		t.Fatal(err)
	}
	return c, fds[1]
}

// TestEvictionPrefersUIDWithMostConnections adds a connection although there are already too many
// connections of two uids. Only connections of the uid with most connections must end.
func TestEvictionPrefersUIDWithMostConnections(t *testing.T) {
	var uids []uint32
	for i := range 100 {
		uids = append(uids, uint32(i%3/2)) // 67 connections of uid 0, and 33 of uid 1
	}
	a := fillAdmissions(t, uids)
	if c, _ := newConnPair(t); a.add(c, 2) != nil {
		t.Error("a connection over the limit was added")
	}
	ended := map[uint32]int{}
	for _, each := range a.unauthorized {
		if each.evicted.Load() {
			ended[each.uid]++
		}
	}
	if len(ended) != 1 || ended[0] != maxEvictions {
		t.Errorf("the numbers of ended connections by uid are %v, want %d of uid 0", ended, maxEvictions)
	}
	// The ending connections are still open, so the next attempt must not end more connections.
	if c, _ := newConnPair(t); a.add(c, 2) != nil {
		t.Error("a connection over the limit was added")
	}
	for _, each := range a.unauthorized {
		if each.uid == 1 && each.evicted.Load() {
			t.Error("a connection of uid 1 was ended")
		}
	}
}

// TestEvictionIsRandom adds more connections of one uid than the limit allows. The connections
// that end must not be exactly the oldest ones.
func TestEvictionIsRandom(t *testing.T) {
	a := fillAdmissions(t, make([]uint32, 3*maxEvictions))
	late, _ := newConnPair(t)
	a.add(late, 0)
	old := 0
	for _, each := range a.unauthorized[:maxEvictions] {
		if each.evicted.Load() {
			old++
		}
	}
	if old == maxEvictions {
		t.Error("exactly the oldest connections were ended")
	}
}

// TestUnreadRefusalsEnd refuses clients that do not read their refusals, until another client gets
// no refusal. After some time, a new client must get a refusal again. The first clients must still
// be able to read their refusals.
func TestUnreadRefusalsEnd(t *testing.T) {
	const limit = 4
	_, path := startConfig(t, Config{MaxUnauthorized: 2 * limit, Serve: func(s *Session) {
		if _, err := s.ReadFirstLine(make([]byte, 8), 2, time.Minute); err == nil {
			s.WriteUnauthorized(Answer(struct{}{}))
		}
	}}, false)
	refuse := func() *net.UnixConn {
		c := dial(t, path)
		io.WriteString(c, "x\n")
		return c
	}
	var unread []*net.UnixConn
	for range limit {
		c := refuse()
		waitUntil(t, func() bool { return hasUnread(t, c) })
		unread = append(unread, c)
	}
	if answer, _ := io.ReadAll(refuse()); len(answer) > 0 {
		t.Errorf("one client more than the limit got the answer %q", answer)
	}
	waitUntil(t, func() bool {
		answer, err := io.ReadAll(refuse())
		return err == nil && len(answer) > 0
	})
	for _, c := range unread {
		if answer, err := io.ReadAll(c); err != nil || len(answer) == 0 {
			t.Errorf("a client that did not read got %q later, error %v", answer, err)
		}
	}
}

func hasUnread(t *testing.T, c *net.UnixConn) (unread bool) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { unread = pollNow(int(fd), unix.POLLIN) != 0 })
	return unread
}
