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

// statusEvery is how often the service manager is told the counts, at least.
const statusEvery = 10 * time.Second

// attend tells the service manager how the broker is, and feeds its watchdog,
// until ctx ends. The watchdog is fed only when a get went all the way.
func attend(ctx context.Context, server *broker.Server, log *slog.Logger) {
	every := statusEvery
	watchdog, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog's time cannot be read; it is not fed", "error", err)
	}
	if watchdog > 0 {
		every = min(every, watchdog/3)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if watchdog > 0 {
			probe, cancel := context.WithTimeout(ctx, every)
			err := server.Probe(probe)
			cancel()
			if err == nil {
				sd.SdNotify(false, sd.SdNotifyWatchdog)
			} else if ctx.Err() == nil {
				log.Error("the watchdog is not fed", "error", err)
			}
		}
		sd.SdNotify(false, status(server))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// status is what systemctl status shows.
func status(server *broker.Server) string {
	s := server.Status()
	return fmt.Sprintf("STATUS=%s served, %s loaded, generation %d", cli.Count(len(s.Projects), "project"), cli.Count(s.SecretCount, "secret"), s.Generation)
}
