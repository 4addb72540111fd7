package broker

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/endpoint"
)

// TestProbeFailsWithoutAnswer probes a socket that never answers.
func TestProbeFailsWithoutAnswer(t *testing.T) {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: t.TempDir() + "/s", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	hanging := &probe{endpoint.New(endpoint.Config{Listener: listener})} // never started
	defer hanging.endpoint.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := hanging.check(ctx); err == nil {
		t.Error("the health check succeeded without an answer")
	}
}
