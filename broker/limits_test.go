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

// TestRequestLimitIsPerProject checks that the broker refuses requests of a project that
// exceeds its request rate, and that other projects are not affected.
func TestRequestLimitIsPerProject(t *testing.T) {
	// The rate is so low that the project cannot send more than one burst during the
	// test.
	s := newServerWithConfig(t, func(c *broker.Config) { c.RequestRate, c.RefusalRate = 0.01, 0 })
	s.register(t, "api", "A")
	s.register(t, "web", "A")
	s.push(t, map[schema.SecretName]schema.Value{"A": {Text: tripwire}})
	c := connect(t, s.projectSocket("api"))
	// A new connection and its first request count as one request.
	for range schema.RequestBurstFactor {
		if answer := c.request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
			t.Fatal(answer)
		}
	}
	// The broker sends at most one refusal per second and connection. Then it stops
	// reading from the connection.
	expectRateLimited := func(c *rawConn) {
		t.Helper()
		var refused schema.ErrorResponse
		if err := json.Unmarshal([]byte(c.request(t, `{"op":"ping"}`)), &refused); err != nil || refused.Code != schema.CodeRateLimited || refused.RetryAfterSeconds < 50 {
			t.Errorf("the answer to a request that exceeds the limit is %+v, error %v", refused, err)
		}
	}
	expectRateLimited(c)
	expectRateLimited(connect(t, s.projectSocket("api")))
	fmt.Fprintln(c, "malformed")
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := c.lines.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the broker answered a second request that exceeds the limit on the same connection: %v", err)
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

// TestRefusalLimitCountsDeniedAndMissingNames checks that denied names and missing names
// count against the same limit. A project that exceeds this limit must still get the
// secrets that are allowed and exist.
func TestRefusalLimitCountsDeniedAndMissingNames(t *testing.T) {
	for _, name := range []string{"DENIED", "MISSING"} {
		s := newServerWithConfig(t, func(c *broker.Config) { c.RequestRate, c.RefusalRate = 0, 0.01 })
		s.register(t, "api", "A", "MISSING")
		s.push(t, map[schema.SecretName]schema.Value{"A": {Text: tripwire}, "DENIED": {Text: tripwire}})
		c := connect(t, s.projectSocket("api"))
		get := func(name string) string { return c.request(t, fmt.Sprintf(`{"op":"get","name":%q}`, name)) }
		for i := range schema.RefusalBurstFactor {
			if answer := get(name); strings.Contains(answer, "rate_limited") {
				t.Fatalf("the answer to a get of %s (request number %d) is %s", name, i+1, answer)
			}
		}
		for _, other := range []string{name, "NEVER_HEARD_OF"} {
			if answer := get(other); !strings.Contains(answer, "rate_limited") {
				t.Errorf("after too many requests for %s, the answer to a get of %s is %s", name, other, answer)
			}
		}
		if answer := c.request(t, `{"op":"get-many","names":["A","DENIED"]}`); !strings.Contains(answer, "rate_limited") || strings.Contains(answer, tripwire) {
			t.Errorf("after too many refused names, the answer to a get-many with a denied name is %s", answer)
		}
		if answer := get("A"); !strings.Contains(answer, tripwire) {
			t.Errorf("the answer to the request for an allowed secret is %s", answer)
		}
	}
}

// TestRefusedNamesOfOneRequestCount requests 1000 denied names in one get-many. At one refused
// name per second, the project must then wait about 1000 seconds.
func TestRefusedNamesOfOneRequestCount(t *testing.T) {
	s := newServerWithConfig(t, func(c *broker.Config) { c.RequestRate, c.RefusalRate = 0, 1 })
	s.register(t, "api", "A")
	c := connect(t, s.projectSocket("api"))
	names := make([]schema.SecretName, 1000)
	for i := range names {
		names[i] = schema.SecretName(fmt.Sprintf("DENIED_%d", i))
	}
	request, err := json.Marshal(schema.GetManyRequest{Op: schema.OpGetMany, Names: names})
	if err != nil {
		t.Fatal(err)
	}
	if answer := c.request(t, string(request)); !strings.Contains(answer, `"ok":true`) {
		t.Fatalf("the answer to the first request is %s", answer)
	}
	var refused schema.ErrorResponse
	answer := c.request(t, `{"op":"get","name":"DENIED"}`)
	if err := json.Unmarshal([]byte(answer), &refused); err != nil || refused.Code != schema.CodeRateLimited || refused.RetryAfterSeconds < 900 {
		t.Errorf("after %d denied names, the answer to a get of a denied name is %s, want rate_limited for at least 900 seconds", len(names), answer)
	}
}

// TestNamesCount requests and lists many names. They must count as several requests, because
// each name costs the broker time, also if the secret does not exist.
func TestNamesCount(t *testing.T) {
	names := make([]string, 1280) // count as 20 requests
	for i := range names {
		names[i] = fmt.Sprintf("MISSING_%d", i)
	}
	// The wait time can differ from cost by a few seconds: the burst allows 2 requests, and the
	// long response counts as up to 8 requests. A get-many with wait_ms costs twice as much,
	// because the broker looks up the missing names before and after the wait.
	for request, cost := range map[string]int{`{"op":"get-many"}`: 20, `{"op":"get-many","wait_ms":1}`: 40, `{"op":"info"}`: 20} {
		s := newServerWithConfig(t, func(c *broker.Config) { c.RequestRate, c.RefusalRate = 1, 0 })
		s.register(t, "api", names...)
		c := connect(t, s.projectSocket("api"))
		c.request(t, request)
		var refused schema.ErrorResponse
		answer := c.request(t, `{"op":"ping"}`)
		err := json.Unmarshal([]byte(answer), &refused)
		if wait := refused.RetryAfterSeconds; err != nil || refused.Code != schema.CodeRateLimited || wait < cost-2 || wait > cost+8 {
			t.Errorf("after %s, the answer to a ping is %s, want rate_limited for %d to %d seconds", request, answer, cost-2, cost+8)
		}
	}
}
