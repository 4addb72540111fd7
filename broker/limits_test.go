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

// TestRequestLimitIsPerProject: a project that asks too often, or guesses, is told to come back,
// and nobody else is.
func TestRequestLimitIsPerProject(t *testing.T) {
	// A second of the test lasts long enough for each burst to be used up.
	s := newServerWithConfig(t, func(c *broker.Config) { c.RequestRate, c.RefusalRate = 0.01, 0 })
	s.register(t, "api", "A")
	s.register(t, "web", "A")
	s.push(t, map[schema.SecretName]schema.Value{"A": {Text: tripwire}})
	c := connect(t, s.projectSocket("api"))
	for range schema.RequestBurstFactor - 1 { // the connection counts as one
		if answer := c.request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
			t.Fatal(answer)
		}
	}
	// One refusal per second and connection, then the broker stops reading.
	expectRateLimited := func(c *rawConn) {
		t.Helper()
		var refused schema.ErrorResponse
		if err := json.Unmarshal([]byte(c.request(t, `{"op":"ping"}`)), &refused); err != nil || refused.Code != schema.CodeRateLimited || refused.RetryAfterSeconds < 50 {
			t.Errorf("%+v, %v", refused, err)
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
		t.Errorf("another project: %s", answer)
	}
	s.Close()
	waitUntil(t, func() bool { return strings.Contains(s.log.String(), "broker.stopped") })
	if n := strings.Count(s.log.String(), `"rate.limited"`); n != 1 {
		t.Errorf("it was recorded %d times", n)
	}
}

// TestRefusalLimitCountsDeniedAndMissingNames: names that are denied and names that are not there are counted
// alike, and what is allowed and there goes on.
func TestRefusalLimitCountsDeniedAndMissingNames(t *testing.T) {
	for _, name := range []string{"DENIED", "MISSING"} {
		s := newServerWithConfig(t, func(c *broker.Config) { c.RequestRate, c.RefusalRate = 0, 0.01 })
		s.register(t, "api", "A", "MISSING")
		s.push(t, map[schema.SecretName]schema.Value{"A": {Text: tripwire}, "DENIED": {Text: tripwire}})
		c := connect(t, s.projectSocket("api"))
		get := func(name string) string { return c.request(t, fmt.Sprintf(`{"op":"get","name":%q}`, name)) }
		for i := range schema.RefusalBurstFactor {
			if answer := get(name); strings.Contains(answer, "rate_limited") {
				t.Fatalf("%s, asked for the %d. time: %s", name, i+1, answer)
			}
		}
		for _, other := range []string{name, "NEVER_HEARD_OF"} {
			if answer := get(other); !strings.Contains(answer, "rate_limited") {
				t.Errorf("%s then %s: %s", name, other, answer)
			}
		}
		if answer := c.request(t, `{"op":"get-many","names":["A","DENIED"]}`); !strings.Contains(answer, "rate_limited") || strings.Contains(answer, tripwire) {
			t.Errorf("get-many: %s", answer)
		}
		if answer := get("A"); !strings.Contains(answer, tripwire) {
			t.Errorf("what is allowed: %s", answer)
		}
	}
}
