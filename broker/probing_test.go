package broker_test

import (
	"context"
	"strings"
	"testing"
)

// TestProbeIsNotRecorded goes the way of a get, and notices when there is none.
func TestProbeIsNotRecorded(t *testing.T) {
	s := newServer(t)
	if err := s.Probe(context.Background()); err != nil {
		t.Error(err)
	}
	if text := s.log.String(); strings.Contains(text, "secrets.fetched") {
		t.Error("the probe is in the audit log")
	}
}
