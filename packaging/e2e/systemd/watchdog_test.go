package systemd

import (
	"strings"
	"testing"
)

// TestHungDaemonIsReplaced stops the daemon's every thread. Its watchdog is
// short here, so that the test is.
func TestHungDaemonIsReplaced(t *testing.T) {
	m := boot(t)
	m.overrideUnit("keyhatch.service", "[Service]\nWatchdogSec=2s")
	m.run("systemctl start keyhatch.service; keyhatchctl register " + m.createProject("api"))
	m.startSidecar()
	before := m.status()
	m.run("systemctl kill --signal=STOP --kill-who=main keyhatch.service")
	// It asks the hung daemon, and is answered by the next.
	m.run("keyhatch --socket " + projectsDir + "api/broker.sock get --wait 30s A >/dev/null")
	if after := m.status(); after.InstanceID == before.InstanceID {
		t.Error("the daemon was not replaced")
	}
	if log := m.run("journalctl --no-pager --output=cat --unit=keyhatch.service"); !strings.Contains(log, "Watchdog timeout") {
		t.Error("systemd does not say that it was the watchdog")
	}
	// One that works is left alone for several times as long.
	instance := m.status().InstanceID
	m.waitFor("the watchdog was fed three times over", `test $(systemctl show --property=WatchdogTimestampMonotonic --value keyhatch.service) -gt \
		$(( $(systemctl show --property=ExecMainStartTimestampMonotonic --value keyhatch.service) + 6000000 ))`)
	if m.status().InstanceID != instance {
		t.Error("a daemon that works was replaced")
	}
}
