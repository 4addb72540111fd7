package broker_test

import (
	"context"
	"strings"
	"testing"
)

// TestProbeIsNotRecorded checks that the broker's health check does not write the audit event
// secrets.fetched.
func TestProbeIsNotRecorded(t *testing.T) {
	s := newServer(t)
	if err := s.Probe(context.Background()); err != nil {
		t.Error(err)
	}
	s.Close()
	// The event broker.stopped is the last event. An event of the health check would be before it.
	waitUntil(t, func() bool { return strings.Contains(s.log.String(), "broker.stopped") })
	if text := s.log.String(); strings.Contains(text, "secrets.fetched") {
		t.Error("the audit log contains the event secrets.fetched of the health check")
	}
}
