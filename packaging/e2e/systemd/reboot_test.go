package systemd

import (
	"strings"
	"testing"
)

// engineUnit stands for the container engine: at boot it starts a container that
// has the project's directory mounted, and which does not wait for anything.
const engineUnit = `[Unit]
Description=a container engine
[Service]
Type=oneshot
RemainAfterExit=yes
BindPaths=` + projects + `api:/mnt/api
ExecStart=/usr/bin/keyhatch --socket /mnt/api/broker.sock list
[Install]
WantedBy=multi-user.target
`

// TestReboot: declared projects are served before the container engine starts.
func TestReboot(t *testing.T) {
	m := boot(t)
	m.run("systemctl start keyhatch.service; keyhatchctl register --persist " + m.project("api"))
	m.sidecar()
	m.run("mkdir /mnt/api")
	m.write("/etc/systemd/system/docker.service", engineUnit)
	m.run("systemctl enable --quiet docker.service")
	// An edit in the project's tree grants nothing at the next boot.
	m.write("/srv/api/.devcontainer/keyhatch.yaml", "schema_version: 1\nproject: api\nsecrets:\n  A:\n  GRANTED_BY_NOBODY:\n")
	m.reboot()
	m.await("the engine has started", "systemctl is-active --quiet docker.service || { systemctl status --no-pager docker.service; false; }")
	if started := m.show("keyhatch.service", "NRestarts"); started != "0" {
		t.Errorf("the daemon restarted %s times at boot", started)
	}
	said := m.run("journalctl --no-pager --output=cat --unit=docker.service")
	if !strings.Contains(said, "MISSING") || strings.Contains(said, "GRANTED_BY_NOBODY") {
		t.Errorf("the container was told of:\n%s", said)
	}
	m.run("keyhatch --socket " + projects + "api/broker.sock get --wait 15s A >/dev/null")
}
