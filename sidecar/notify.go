package sidecar

import (
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// A notifier sends the sidecar's status to the service manager, if the sidecar runs as
// a service (sd_notify(3)). A status contains counts but no names, because every user
// of the machine can read it.
type notifier struct{ lastStatus string }

// sendStatus sends a status if it differs from the last one.
func (n *notifier) sendStatus(status string) {
	if status == n.lastStatus {
		return
	}
	n.lastStatus = status
	// The first status also reports that the sidecar is ready, even if the broker is
	// unreachable. Otherwise a missing broker would delay the boot.
	daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS="+status)
}

// newWatchdogTicker returns a ticker with half the watchdog interval of the service
// manager (sd_watchdog_enabled(3)), or nil if the watchdog is disabled. Run's loop
// notifies the watchdog at each tick, so the service manager detects a loop that hangs.
func newWatchdogTicker() *time.Ticker {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return nil
	}
	return time.NewTicker(interval / 2)
}
