package systemd

import "testing"

// TestRestartWithLockedDirectory restarts the daemon while a container keeps the directory of
// a project locked in the kernel. A child process of the daemon then waits for the lock and
// cannot be killed. systemd must not wait for this process, and the new daemon must serve the
// other projects.
func TestRestartWithLockedDirectory(t *testing.T) {
	m := boot(t)
	m.run("systemctl start keyhatch.service; keyhatchctl register " + m.createProject("api") + "; keyhatchctl register " + m.createProject("web"))
	m.startSidecar()
	m.run(`mkfifo /tmp/release; { sleep 600 >/tmp/release & }
		attack as-attacker lock $(readlink -f ` + projectsDir + `api) 0 </tmp/release >/tmp/locked 2>&1 &`)
	release := func() { m.run("pkill sleep; while pgrep -x attack; do sleep 0.02; done") }
	m.waitFor("the directory is locked", `grep -x "1 1" /tmp/locked`)
	// The option -L lists threads. If the child process was killed, only its thread that waits
	// for the lock still exists.
	const waits = `ps -eLo stat,args | grep "^D.*keyhatchd-directories"`
	restarted := func() bool {
		defer release()
		m.run("keyhatchctl unregister api")
		m.waitFor("a child process waits for the lock", waits)
		// If systemd waited for the child process, the restart would take ten seconds (TimeoutStopSec=).
		_, err := m.try("timeout 5 systemctl restart keyhatch.service")
		if err == nil {
			_, err = m.try("keyhatch --socket " + projectsDir + "web/broker.sock get --wait 15s A >/dev/null; " + waits)
		}
		if err != nil {
			t.Errorf("while the directory is locked: %v", err)
		}
		return err == nil
	}()
	if restarted {
		m.waitFor("the project can be registered again", "keyhatchctl register /srv/api")
		m.run("keyhatch --socket " + projectsDir + "api/broker.sock get A >/dev/null")
	}
}
