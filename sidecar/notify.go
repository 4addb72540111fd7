package sidecar

import (
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// A notifier sends the sidecar's status to the service manager, if there is one
// (sd_notify(3)). A status has only counts, because everybody can read it.
type notifier struct{ lastStatus string }

// sendStatus sends a status that differs from the last one.
func (n *notifier) sendStatus(status string) {
	if status == n.lastStatus {
		return
	}
	n.lastStatus = status
	// Ready with the first status, whatever it is: a broker that is down must not
	// hold up a boot.
	daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS="+status)
}

// newWatchdogTicker returns a ticker at half the time after which the service manager
// takes the sidecar for dead (sd_watchdog_enabled(3)), or nil where it does not
// look. Run's own loop feeds it, so a loop that hangs is found out.
func newWatchdogTicker() *time.Ticker {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return nil
	}
	return time.NewTicker(interval / 2)
}
