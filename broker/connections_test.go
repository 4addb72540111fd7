package broker_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// TestConnectionLimitIsPerProject opens as many connections to a project as allowed.
// The next connection must be refused. Other projects must not be affected.
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
		t.Errorf("after one connection was closed, the answer to a new one is %s", got)
	}
}

// TestConnectionEndsWithinLine closes a connection before the end of a line.
func TestConnectionEndsWithinLine(t *testing.T) {
	s := newServer(t)
	c := connect(t, s.adminSocket)
	fmt.Fprint(c, `{"op":"push-creds","secrets":{"A":"`+tripwire)
	c.Conn.(*net.UnixConn).CloseWrite()
	if got := c.readLine(t); !strings.Contains(got, "before the end of a line") || strings.Contains(got, tripwire) {
		t.Errorf("the answer is %s", got)
	}
}
