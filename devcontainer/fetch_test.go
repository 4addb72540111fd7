package devcontainer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// serveAnswer starts a server that sends answer to every request until the test ends. It
// returns a client of this server.
func serveAnswer(t *testing.T, answer string) *client.Project {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh") // a short path, because socket addresses have a length limit
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	t.Cleanup(func() { listener.Close(); <-stopped })
	go func() { // this goroutine ends when the listener is closed
		defer close(stopped)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			bufio.NewReader(conn).ReadString('\n')
			fmt.Fprintln(conn, answer)
			conn.Close()
		}
	}()
	return client.NewProject(path)
}

// getManyAnswer returns an answer to the operation get-many. The arguments are the contents of the
// JSON objects secrets and errors, without the braces.
func getManyAnswer(secrets, errors string) string {
	return `{"ok":true,"generation":1,"secrets":{` + secrets + `},"errors":{` + errors + `}}`
}

func TestFetchStopsWhenContextIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Fetch(ctx, serveAnswer(t, ""), []schema.SecretName{"A"}, schema.MaxWait); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestFetchWithoutNamesFetchesNothing checks that Fetch sends no request if the list of names
// is empty. The socket does not exist, so a request would fail.
func TestFetchWithoutNamesFetchesNothing(t *testing.T) {
	if got, err := Fetch(t.Context(), client.NewProject("/nowhere"), nil, 0); len(got) != 0 || err != nil {
		t.Errorf("Fetch returned %d secrets, error %v, want neither", len(got), err)
	}
}
