package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// TestWaitingPlanSurvivesRestarts uses a broker that ends the connection of the first request
// of each operation, like a broker that is killed at this moment. With a wait, newPlan and
// fetchAndRender must succeed, because they send each failed request again.
func TestWaitingPlanSurvivesRestarts(t *testing.T) {
	socket := serveEachOperationTwice(t, map[schema.Op]string{
		schema.OpPing:    `{"ok":true,"project":"api","broker_version":"1","protocol_version":2,"instance_id":"i"}`,
		schema.OpInfo:    `{"ok":true,"project":"api","allowlist":["A"],"schema_version":1,"secrets":{"A":{"as":"env","env":"A"}}}`,
		schema.OpGetMany: `{"ok":true,"generation":1,"secrets":{"A":{"value":"v"}},"errors":{}}`,
	})
	p, err := newPlan(t.Context(), client.NewProject(socket), planOptions{wait: time.Minute, withVariables: true})
	if err != nil {
		t.Fatal(err)
	}
	environment, _, err := p.fetchAndRender(t.Context(), p.remainingWait)
	if err != nil || len(environment) != 1 || environment[0] != "A=v" {
		t.Errorf("the environment is %q, and the error is %v", environment, err)
	}
}

// serveEachOperationTwice starts a server that ends the first request of each operation
// without an answer, and answers all later requests. It returns the path of the socket.
func serveEachOperationTwice(t *testing.T, answers map[schema.Op]string) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh") // a short path, because socket addresses have a length limit
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	t.Cleanup(func() { listener.Close(); <-stopped })
	go func() { // this goroutine ends when the listener is closed
		defer close(stopped)
		seen := map[schema.Op]bool{}
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			var request struct{ Op schema.Op }
			line, _ := bufio.NewReader(c).ReadString('\n')
			json.Unmarshal([]byte(line), &request)
			if seen[request.Op] {
				io.WriteString(c, answers[request.Op]+"\n")
			}
			seen[request.Op] = true
			c.Close()
		}
	}()
	return socket
}
