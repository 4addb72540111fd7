package broker

import (
	"context"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/endpoint"
)

// TestProbeFailsWithoutAnswer checks that the health check fails if the broker never
// answers.
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
