package broker_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
)

// listenAs listens on a socket like a process of the user uid.
func listenAs(t *testing.T, path string, uid int) net.Listener {
	t.Helper()
	var listener net.Listener
	var err error
	testenv.AsUser(t, uid, func() { listener, err = net.Listen("unix", path) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

// TestTokenIsNotSentToAnotherUser connects to listeners of several users with a token file. The
// client must send the token only to a listener of root, of its own user, or of the owner of the
// token file. It must send nothing to any other listener.
func TestTokenIsNotSentToAnotherUser(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "only root can listen as another user")
	token := strings.Repeat("0", 64)
	for _, c := range []struct {
		name            string
		listener, owner int
		mustSend        bool
	}{
		{"root", 0, 1001, true},
		{"the owner of the file", 1001, 1001, true},
		{"another user", 1002, 1001, false},
		{"another user, and a file of root", 1002, 0, false},
		{"an unmapped user who seems to own the file", schema.UnmappedUID, schema.UnmappedUID, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "kh") // the other user cannot use the directory of t.TempDir
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			socket, file := filepath.Join(dir, "s"), filepath.Join(dir, "token")
			if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(file, c.owner, -1); err != nil {
				t.Fatal(err)
			}
			listener := listenAs(t, socket, c.listener)
			received := make(chan string, 1)
			go func() { // the end of the client's connection ends this goroutine
				accepted, err := listener.Accept()
				if err != nil {
					received <- err.Error()
					return
				}
				defer accepted.Close()
				line := make([]byte, 1024)
				n, _ := accepted.Read(line)
				io.WriteString(accepted, `{"ok":true}`+"\n")
				received <- string(line[:n])
			}()
			admin, err := client.DialAdminWithToken(t.Context(), socket, file)
			if err == nil {
				admin.Close()
			}
			got := <-received
			if c.mustSend {
				if err != nil || !strings.Contains(got, token) {
					t.Errorf("the client sent %q, error %v", got, err)
				}
				return
			}
			if got != "" {
				t.Errorf("the client sent %q", got)
			}
			if refused, ok := errors.AsType[*client.UntrustedListenerError](err); !ok || refused.UID != uint32(c.listener) {
				t.Errorf("the error is %v, want an UntrustedListenerError for uid %d", err, c.listener)
			}
		})
	}
}
