package broker

import (
	"context"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/endpoint"
)

// TestProbeFailsWithoutAnswer makes a health check of a probe that never answers. The health check
// must fail when its context ends.
func TestProbeFailsWithoutAnswer(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	hanging := &probe{func(*endpoint.Session) { <-hang }}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := hanging.check(ctx); err == nil {
		t.Error("a broker that does not answer passes the health check")
	}
}
