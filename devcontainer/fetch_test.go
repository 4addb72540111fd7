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

// project serves one answer to whatever is asked, on a socket.
func project(t *testing.T, answer string) *client.Project {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-ended })
	go func() { // ends with the listener
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			bufio.NewReader(c).ReadString('\n')
			fmt.Fprintln(c, answer)
			c.Close()
		}
	}()
	return client.NewProject(path)
}

func many(secrets, errors string) string {
	return `{"ok":true,"generation":1,"secrets":{` + secrets + `},"errors":{` + errors + `}}`
}

// An interrupt ends a wait.
func TestFetchEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Fetch(ctx, project(t, ""), []schema.SecretName{"A"}, schema.MaxWait); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Without names nothing is fetched, and not everything.
func TestFetchNothing(t *testing.T) {
	if got, err := Fetch(t.Context(), client.NewProject("/nowhere"), nil, 0); len(got) != 0 || err != nil {
		t.Errorf("%d secrets, %v", len(got), err)
	}
}
