package systemd

import (
	"strings"
	"testing"
)

// engineUnit is a unit that simulates a container engine. At boot, the unit starts the command
// keyhatch list. The directory of project api is mounted for this command, as in a container.
// The command does not wait for the daemon.
const engineUnit = `[Unit]
Description=a container engine
[Service]
Type=oneshot
RemainAfterExit=yes
BindPaths=` + projectsDir + `api:/mnt/api
ExecStart=/usr/bin/keyhatch --socket /mnt/api/broker.sock list
[Install]
WantedBy=multi-user.target
`

// TestDeclaredProjectsAreServedBeforeEngineStarts reboots a machine with a declared project
// and a container engine. The project's socket must already work when the engine starts a
// container of the project.
func TestDeclaredProjectsAreServedBeforeEngineStarts(t *testing.T) {
	m := boot(t)
	m.run("systemctl start keyhatch.service; keyhatchctl register --persist " + m.createProject("api"))
	m.startSidecar()
	m.run("mkdir /mnt/api")
	m.writeFile("/etc/systemd/system/docker.service", engineUnit)
	m.run("systemctl enable --quiet docker.service")
	// An edit in the project's tree must have no effect at the next boot.
	m.writeFile("/srv/api/.devcontainer/keyhatch.yaml", "schema_version: 1\nproject: api\nsecrets:\n  A:\n  GRANTED_BY_NOBODY:\n")
	m.reboot()
	m.waitFor("the container engine has started", "systemctl is-active --quiet docker.service || { systemctl status --no-pager docker.service; false; }")
	if started := m.unitProperty("keyhatch.service", "NRestarts"); started != "0" {
		t.Errorf("the daemon restarted %s times at boot", started)
	}
	log := m.run("journalctl --no-pager --output=cat --unit=docker.service")
	if !strings.Contains(log, "MISSING") || strings.Contains(log, "GRANTED_BY_NOBODY") {
		t.Errorf("the container's allowlist is not the approved allowlist:\n%s", log)
	}
	m.run("keyhatch --socket " + projectsDir + "api/broker.sock get --wait 15s A >/dev/null")
}
