package sidecar

import (
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// A notifier sends the sidecar's status to the service manager with sd_notify(3). If the
// sidecar does not run as a service, the notifier has no effect. The status contains counts, but
// never a name or a value of a secret, because every user of the machine can read the status.
type notifier struct{ lastStatus string }

// sendStatus sends the status if the status differs from the last status that was sent.
func (n *notifier) sendStatus(status string) {
	if status == n.lastStatus {
		return
	}
	n.lastStatus = status
	// Every status message also reports that the sidecar is ready, even if the broker is
	// not reachable. Otherwise the boot would wait for a broker that is not running.
	daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS="+status)
}

// newWatchdogTicker returns a ticker whose interval is half of the service manager's
// watchdog interval (sd_watchdog_enabled(3)). If the watchdog is disabled,
// newWatchdogTicker returns nil. Run's loop notifies the watchdog at each tick. If the
// loop hangs, the notifications stop, and the service manager detects the problem.
func newWatchdogTicker() *time.Ticker {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return nil
	}
	return time.NewTicker(interval / 2)
}
