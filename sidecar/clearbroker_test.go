package sidecar

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/sidecar/store"
)

// TestClearKeepsSecretsOfOthers clears the broker on exit. The sidecar must remove only the secrets of its own
// last push, even if the sidecar has not noticed yet that the broker has restarted, or that another client
// has pushed.
func TestClearKeepsSecretsOfOthers(t *testing.T) {
	pushOther := func(h *testHost) {
		admin := h.dialAdmin()
		defer admin.Close()
		if _, err := admin.Push(context.Background(), pushLine("X", tripwire)); err != nil {
			h.t.Fatal(err)
		}
	}
	restart := func(h *testHost) { h.server.Close(); h.startBroker() }
	for name, c := range map[string]struct {
		change func(h *testHost, p *publisher)
		want   int // the number of secrets in the broker
		isKept bool
	}{
		"nothing":                {func(*testHost, *publisher) {}, 0, false},
		"lost connection":        {func(_ *testHost, p *publisher) { p.connection.close() }, 0, false},
		"cleared by an operator": {func(h *testHost, _ *publisher) { h.clearBroker() }, 0, false},
		"another push":           {func(h *testHost, _ *publisher) { pushOther(h) }, 1, true},
		"another push, lost connection": {func(h *testHost, p *publisher) {
			p.connection.close()
			pushOther(h)
		}, 1, true},
		"restart": {func(h *testHost, p *publisher) {
			p.connection.close()
			restart(h)
			pushOther(h)
		}, 1, true},
		"restart without secrets": {func(h *testHost, p *publisher) {
			p.connection.close()
			restart(h)
		}, 0, false},
		"restart, new connection": {func(h *testHost, p *publisher) {
			p.connection.close()
			restart(h)
			pushOther(h)
			p.push(h.t.Context(), nil) // connects
		}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHost(t)
			h.writeSecret("A", tripwire)
			reading, err := readInProcess(store.Dir{Path: h.store})(t.Context(), store.LockedReading{})
			if err != nil {
				t.Fatal(err)
			}
			log := &logBuffer{}
			p := newPublisher(h.server.AdminSocket(), "", slog.New(slog.NewTextHandler(log, nil)))
			defer p.connection.close()
			p.push(t.Context(), reading.Set)
			h.waitForNames("A")
			c.change(h, p)
			p.clearBroker()
			if got := h.status().SecretCount; got != c.want {
				t.Errorf("the broker has %d secrets, want %d", got, c.want)
			}
			const text = `level=WARN msg="the secrets in the broker were not removed`
			if isKept := strings.Contains(log.String(), text); isKept != c.isKept || strings.Contains(log.String(), "level=ERROR") {
				t.Errorf("the sidecar logged:\n%s", log)
			}
		})
	}
}

// TestClearOnExit stops a sidecar. The broker must lose its secrets only if ClearOnExit is true.
func TestClearOnExit(t *testing.T) {
	for _, clear := range []bool{false, true} {
		h := newTestHost(t)
		h.writeSecret("A", tripwire)
		r := h.runSidecar(func(c *Config) { c.ClearOnExit = clear })
		h.waitForNames("A")
		r.stop()
		if got := h.status().SecretCount; (got == 0) != clear {
			t.Errorf("with ClearOnExit %v, the broker has %d secrets after the sidecar has ended", clear, got)
		}
	}
}

// TestRefusedSidecarDoesNotClear checks that a refused sidecar does not remove the secrets of
// the other sidecar when it exits.
func TestRefusedSidecarDoesNotClear(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	h.runSidecar(nil)
	h.waitForNames("A")
	refused := h.runSidecar(func(c *Config) { c.ClearOnExit = true })
	refused.waitForLog(h, "the broker refuses this sidecar")
	refused.stop()
	if count := h.status().SecretCount; count != 1 {
		t.Errorf("the broker has %d secrets after a refused sidecar has ended, want 1", count)
	}
}

// TestSidecarWithoutPushDoesNotClear starts a second sidecar whose store does not exist. The second
// sidecar never pushes, so it must not remove the secrets of the first sidecar when it exits.
func TestSidecarWithoutPushDoesNotClear(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	h.runSidecar(nil)
	h.waitForNames("A")
	second := h.runSidecar(func(c *Config) { c.ClearOnExit, c.Store = true, store.Dir{Path: "/nonexistent"} })
	second.waitForLog(h, "cannot read the store")
	second.stop()
	if count := h.status().SecretCount; count != 1 {
		t.Errorf("the broker has %d secrets after the second sidecar has ended, want 1", count)
	}
}
