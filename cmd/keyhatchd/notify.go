package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
)

// statusInterval is the time between two status notifications to the service manager, unless the
// watchdog of the service requires a shorter time.
const statusInterval = 10 * time.Second

// notifySystemd regularly sends the broker's status to the service manager, until ctx ends.
// It also resets the watchdog of the service, but only if the broker has answered a test
// request.
func notifySystemd(ctx context.Context, server *broker.Server, log *slog.Logger) {
	interval := statusInterval
	watchdog, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("cannot read the watchdog timeout, so keyhatchd will not reset the watchdog", "error", err)
	}
	if watchdog > 0 {
		interval = min(interval, watchdog/3)
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if watchdog > 0 {
			probeCtx, cancel := context.WithTimeout(ctx, interval)
			err := server.Probe(probeCtx)
			cancel()
			if err == nil {
				sd.SdNotify(false, sd.SdNotifyWatchdog)
			} else if ctx.Err() == nil {
				log.Error("keyhatchd did not reset the watchdog, because the test request failed", "error", err)
			}
		}
		sd.SdNotify(false, statusNotification(server))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// statusNotification returns a line STATUS=TEXT. systemctl status shows the text.
func statusNotification(server *broker.Server) string {
	projects, secrets := server.Summary()
	return fmt.Sprintf("STATUS=%s served, %s loaded, generation %d", cli.Plural(projects, "project"), cli.Plural(secrets.SecretCount, "secret"), secrets.Generation)
}
