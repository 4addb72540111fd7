package broker_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// TestConnectionLimitIsPerProject opens as many connections to a project as the limit
// allows. The broker must refuse the next connection to this project. The limit must not
// affect other projects.
func TestConnectionLimitIsPerProject(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	s.register(t, "web", "A")
	var open []*rawConn
	for range schema.MaxProjectConnections {
		c := connect(t, s.projectSocket("api"))
		c.request(t, `{"op":"ping"}`)
		open = append(open, c)
	}
	refused := connect(t, s.projectSocket("api")).readLine(t)
	if !strings.Contains(refused, `"code":"rate_limited"`) || !strings.Contains(refused, `"retry_after_seconds":1`) {
		t.Errorf("the answer to a connection over the limit is %s", refused)
	}
	if got := connect(t, s.projectSocket("web")).request(t, `{"op":"ping"}`); !strings.Contains(got, `"ok":true`) {
		t.Errorf("the answer of another project is %s", got)
	}
	open[0].Close()
	for s.connections(t, "api") == schema.MaxProjectConnections {
	}
	if got := connect(t, s.projectSocket("api")).request(t, `{"op":"ping"}`); !strings.Contains(got, `"ok":true`) {
		t.Errorf("after one connection was closed, the answer on a new connection is %s", got)
	}
}

// TestConnectionEndsWithinLine sends a part of a push and then shuts down its writing side of the
// connection. The answer must be an error that contains no part of the push.
func TestConnectionEndsWithinLine(t *testing.T) {
	s := newServer(t)
	c := connect(t, s.adminSocket)
	fmt.Fprint(c, `{"op":"push-creds","secrets":{"A":"`+tripwire)
	c.Conn.(*net.UnixConn).CloseWrite()
	if got := c.readLine(t); !strings.Contains(got, "before the end of a line") || strings.Contains(got, tripwire) {
		t.Errorf("the answer to an incomplete line is %s", got)
	}
}
