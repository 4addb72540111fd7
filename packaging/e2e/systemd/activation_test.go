package systemd

import (
	"strings"
	"testing"
)

// TestFirstConnectionStartsTheDaemon checks that systemd starts the daemon at the first
// connection to the admin socket. It also checks that a user outside the group keyhatch
// cannot connect.
func TestFirstConnectionStartsTheDaemon(t *testing.T) {
	m := boot(t)
	m.run(`systemctl start keyhatch.socket
		useradd --groups keyhatch alice
		useradd bob`)
	if state := m.run("systemctl is-active keyhatch.service || true"); state != "inactive" {
		t.Fatalf("the daemon is %s before the first connection", state)
	}
	statusAs := func(user string) string {
		return "setpriv --reuid=" + user + " --regid=" + user + " --init-groups keyhatchctl status --socket " + adminSocket
	}
	m.mustFail(statusAs("bob"), "permission denied")
	if state := m.run("systemctl is-active keyhatch.service || true"); state != "inactive" {
		t.Errorf("the daemon is %s after a refused connection", state)
	}
	if out := m.run(statusAs("alice")); !strings.Contains(out, "memory") {
		t.Errorf("for a member of the group keyhatch, keyhatchctl status printed no status: %s", out)
	}
	if state := m.run("systemctl is-active keyhatch.service"); state != "active" {
		t.Errorf("the daemon is %s after the first connection", state)
	}
	m.mustFail(statusAs("bob"), "permission denied")
}

// TestSocketAndDirectoryModes checks the modes and owners of the sockets and directories.
// It repeats the check after a restart of the daemon and after a reboot of the machine.
func TestSocketAndDirectoryModes(t *testing.T) {
	m := boot(t)
	m.run("systemctl start keyhatch.service; keyhatchctl register --persist " + m.createProject("api"))
	const want = `755 keyhatch keyhatch /run/keyhatch
750 keyhatch keyhatch /run/keyhatch/admin
660 root keyhatch /run/keyhatch/admin/admin.sock
700 keyhatch keyhatch /run/keyhatch/projects
755 keyhatch keyhatch /run/keyhatch/projects/api
666 keyhatch keyhatch /run/keyhatch/projects/api/broker.sock
2750 root keyhatch /etc/keyhatch
2750 root keyhatch /etc/keyhatch/projects.d
700 keyhatch-sidecar keyhatch-sidecar /etc/keyhatch/secrets`
	checkModes := func(when string) {
		t.Helper()
		if got := m.run(`cd /run/keyhatch; stat -L --format='%a %U %G %n' $PWD $PWD/admin $PWD/admin/admin.sock $PWD/projects $PWD/projects/api $PWD/projects/api/broker.sock \
			/etc/keyhatch /etc/keyhatch/projects.d /etc/keyhatch/secrets`); got != want {
			t.Errorf("modes and owners %s:\n%s\nwant:\n%s", when, got, want)
		}
	}
	checkModes("after the first start")
	m.run("systemctl restart keyhatch.service")
	checkModes("after a restart")
	m.reboot()
	m.waitFor("the daemon is active", "systemctl is-active --quiet keyhatch.service")
	checkModes("after a reboot")
}
