package systemd

import (
	"strings"
	"testing"
)

// TestHungDaemonIsReplaced stops all threads of the daemon. The watchdog timeout is
// short, so that the test is fast.
func TestHungDaemonIsReplaced(t *testing.T) {
	m := boot(t)
	m.overrideUnit("keyhatch.service", "[Service]\nWatchdogSec=2s")
	m.run("systemctl start keyhatch.service; keyhatchctl register " + m.createProject("api"))
	m.startSidecar()
	before := m.status()
	m.run("systemctl kill --signal=STOP --kill-who=main keyhatch.service")
	// The request is sent to the hung daemon, and the new daemon answers it.
	m.run("keyhatch --socket " + projectsDir + "api/broker.sock get --wait 30s A >/dev/null")
	if after := m.status(); after.InstanceID == before.InstanceID {
		t.Error("the daemon was not replaced")
	}
	if log := m.run("journalctl --no-pager --output=cat --unit=keyhatch.service"); !strings.Contains(log, "Watchdog timeout") {
		t.Error("systemd did not log a watchdog timeout")
	}
	// systemd must not replace a daemon that resets its watchdog.
	instance := m.status().InstanceID
	m.waitFor("the watchdog was reset for three times its timeout", `test $(systemctl show --property=WatchdogTimestampMonotonic --value keyhatch.service) -gt \
		$(( $(systemctl show --property=ExecMainStartTimestampMonotonic --value keyhatch.service) + 6000000 ))`)
	if m.status().InstanceID != instance {
		t.Error("systemd replaced a working daemon")
	}
}
