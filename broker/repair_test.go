package broker_test

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// TestMissingSocketIsCreatedAgain deletes or replaces a project's socket file. Root in
// the project's container can do the same. The broker must create the socket again.
func TestMissingSocketIsCreatedAgain(t *testing.T) {
	for name, sabotage := range map[string]func(path string) error{
		"deleted": func(string) error { return nil },
		"symlink": func(path string) error { return os.Symlink("/etc/passwd", path) },
		"file":    func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"other listener": func(path string) error {
			l, err := net.Listen("unix", path)
			if err == nil {
				l.(*net.UnixListener).SetUnlinkOnClose(false)
				t.Cleanup(func() { l.Close() })
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newServiceManager(t, 100)
			s := m.start()
			m.register("api", "A")
			m.register("web", "A")
			m.push(tripwire)
			open := connect(t, m.projectSocket("api"))
			open.request(t, `{"op":"ping"}`)
			path := m.projectSocket("api")
			before, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := sabotage(path); err != nil {
				t.Fatal(err)
			}
			waitUntil(t, func() bool {
				after, err := os.Lstat(path)
				return err == nil && after.Mode().Type() == os.ModeSocket && !os.SameFile(before, after) && canPing(path)
			})
			for _, c := range []*rawConn{open, connect(t, path), connect(t, m.projectSocket("web"))} {
				if answer := c.request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
					t.Errorf("after the socket was created again, the answer to get is %s", answer)
				}
			}
			// The listener of the new socket must survive a restart.
			s.Close()
			s = m.start()
			m.push(tripwire)
			if answer := connect(t, path).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
				t.Errorf("after a restart, the answer to get on the new socket is %s", answer)
			}
			if n := len(s.Status().Projects); n != 2 || s.Status().DescriptorStore != schema.DescriptorStoreKept {
				t.Errorf("after a restart, %d projects are served, want 2, and the state of the file descriptor store is %s", n, s.Status().DescriptorStore)
			}
		})
	}
}

// canPing reports whether a broker answers a ping on a socket.
func canPing(path string) bool {
	c, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte(`{"op":"ping"}` + "\n")); err != nil {
		return false
	}
	_, err = c.Read(make([]byte, 1))
	return err == nil
}
