package broker_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/schema"
)

// TestRequestLimitIsPerProject checks that the broker refuses the requests of a
// project over its rate limit, and that other projects are not affected.
func TestRequestLimitIsPerProject(t *testing.T) {
	// The rate is so low that the burst is not refilled during the test.
	s := newServerWithConfig(t, func(c *broker.Config) { c.RequestRate, c.RefusalRate = 0.01, 0 })
	s.register(t, "api", "A")
	s.register(t, "web", "A")
	s.push(t, map[schema.SecretName]schema.Value{"A": {Text: tripwire}})
	c := connect(t, s.projectSocket("api"))
	for range schema.RequestBurstFactor { // the connection counts together with the first one
		if answer := c.request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
			t.Fatal(answer)
		}
	}
	// One refusal per second and connection, then the broker stops reading.
	expectRateLimited := func(c *rawConn) {
		t.Helper()
		var refused schema.ErrorResponse
		if err := json.Unmarshal([]byte(c.request(t, `{"op":"ping"}`)), &refused); err != nil || refused.Code != schema.CodeRateLimited || refused.RetryAfterSeconds < 50 {
			t.Errorf("the answer over the limit is %+v, %v", refused, err)
		}
	}
	expectRateLimited(c)
	expectRateLimited(connect(t, s.projectSocket("api")))
	fmt.Fprintln(c, "malformed")
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := c.lines.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is over its limit, and was answered: %v", err)
	}
	if answer := connect(t, s.projectSocket("web")).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
		t.Errorf("the answer of another project is %s", answer)
	}
	s.Close()
	waitUntil(t, func() bool { return strings.Contains(s.log.String(), "broker.stopped") })
	if n := strings.Count(s.log.String(), `"rate.limited"`); n != 1 {
		t.Errorf("the log has %d rate.limited events, want 1", n)
	}
}

// TestRefusalLimitCountsDeniedAndMissingNames checks that denied names and missing
// names count against the same limit, and that existing allowed secrets can still be
// fetched.
func TestRefusalLimitCountsDeniedAndMissingNames(t *testing.T) {
	for _, name := range []string{"DENIED", "MISSING"} {
		s := newServerWithConfig(t, func(c *broker.Config) { c.RequestRate, c.RefusalRate = 0, 0.01 })
		s.register(t, "api", "A", "MISSING")
		s.push(t, map[schema.SecretName]schema.Value{"A": {Text: tripwire}, "DENIED": {Text: tripwire}})
		c := connect(t, s.projectSocket("api"))
		get := func(name string) string { return c.request(t, fmt.Sprintf(`{"op":"get","name":%q}`, name)) }
		for i := range schema.RefusalBurstFactor {
			if answer := get(name); strings.Contains(answer, "rate_limited") {
				t.Fatalf("the answer to %s in request %d is %s", name, i+1, answer)
			}
		}
		for _, other := range []string{name, "NEVER_HEARD_OF"} {
			if answer := get(other); !strings.Contains(answer, "rate_limited") {
				t.Errorf("after %s, the answer to %s is %s", name, other, answer)
			}
		}
		if answer := c.request(t, `{"op":"get-many","names":["A","DENIED"]}`); !strings.Contains(answer, "rate_limited") || strings.Contains(answer, tripwire) {
			t.Errorf("the answer to get-many is %s", answer)
		}
		if answer := get("A"); !strings.Contains(answer, tripwire) {
			t.Errorf("the answer to an allowed secret is %s", answer)
		}
	}
}
