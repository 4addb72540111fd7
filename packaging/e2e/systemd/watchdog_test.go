package systemd

import (
	"strings"
	"testing"
)

// TestHungDaemonIsReplaced stops all threads of the daemon, and checks that systemd replaces
// the daemon. It sets a short watchdog timeout, so that the test is fast.
func TestHungDaemonIsReplaced(t *testing.T) {
	m := boot(t)
	m.overrideUnit("keyhatch.service", "[Service]\nWatchdogSec=2s")
	m.run("systemctl start keyhatch.service; keyhatchctl register " + m.createProject("api"))
	m.startSidecar()
	before := m.status()
	m.run("systemctl kill --signal=STOP --kill-who=main keyhatch.service")
	// The client sends a request while the daemon hangs. The new daemon must answer the
	// request.
	m.run("keyhatch --socket " + projectsDir + "api/broker.sock get --wait 30s A >/dev/null")
	if after := m.status(); after.InstanceID == before.InstanceID {
		t.Error("systemd did not replace the hung daemon")
	}
	if log := m.run("journalctl --no-pager --output=cat --unit=keyhatch.service"); !strings.Contains(log, "Watchdog timeout") {
		t.Error("systemd did not log a watchdog timeout")
	}
	// A daemon that works notifies the watchdog, so systemd must not replace this daemon.
	instance := m.status().InstanceID
	m.waitFor("the daemon has notified the watchdog for three times the watchdog timeout", `test $(systemctl show --property=WatchdogTimestampMonotonic --value keyhatch.service) -gt \
		$(( $(systemctl show --property=ExecMainStartTimestampMonotonic --value keyhatch.service) + 6000000 ))`)
	if m.status().InstanceID != instance {
		t.Error("systemd replaced a working daemon")
	}
}
