package sidecar

import (
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// tell says how the sidecar is to the service manager, where there is one
// (sd_notify(3)). Counts only: a status is read by everybody.
func (s *state) tell() {
	status := "the store cannot be used"
	switch {
	case s.set == nil && s.storeErr == "":
		status = "reading the store"
	case s.storeErr != "" && s.pushed != nil:
		status = "the store cannot be used; the last good set is in force"
	case s.storeErr == "" && s.link.admin == nil:
		status = "waiting for the broker"
	case s.storeErr == "" && s.pushed != nil:
		status = fmt.Sprintf("%d secrets pushed, generation %d", len(s.pushed), s.generation)
	}
	if status == s.told {
		return
	}
	s.told = status
	// Ready with the first word, whatever it is: a broker that is down must not
	// hold up a boot.
	daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS="+status)
}

// watchdog returns a ticker at half the time after which the service manager
// takes the sidecar for dead (sd_watchdog_enabled(3)), or nil where it does not
// look. Run's own loop feeds it, so a loop that hangs is found out.
func watchdog() *time.Ticker {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return nil
	}
	return time.NewTicker(interval / 2)
}
