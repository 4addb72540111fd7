package systemd

import (
	"os"
	"strings"
	"testing"
)

// TestProjectsFileSystem installs the mount unit from README.md, which creates a separate
// file system for the directories of projects. A container that fills this file system must
// not affect /run, the broker, or other projects.
func TestProjectsFileSystem(t *testing.T) {
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "```ini\n")
	unit, _, closed := strings.Cut(rest, "```")
	if !found || !closed || !strings.Contains(unit, "[Mount]") {
		t.Fatal("README.md contains no mount unit")
	}
	m := boot(t)
	m.run("cat >/etc/systemd/system/run-keyhatch-projects.mount <<'UNIT'\n" + unit + "UNIT\nsystemctl daemon-reload")
	m.run("systemctl enable --now run-keyhatch-projects.mount")
	if kind := m.run("stat --file-system --format=%T /run/keyhatch/projects"); kind != "tmpfs" {
		t.Errorf("the file system of the projects is %s, want tmpfs", kind)
	}
	m.run("systemctl start keyhatch.service; keyhatchctl register " + m.createProject("api"))
	m.startSidecar()
	m.run("dd if=/dev/zero of=" + projectsDir + "api/filler bs=64k 2>/dev/null || true")
	m.run("dd if=/dev/zero of=/run/other bs=64k count=16 2>/dev/null") // must succeed, because /run must still have free space
	m.run("keyhatch --socket " + apiSocket + " get A >/dev/null")
	m.run("systemctl restart keyhatch.service")
	m.waitFor("the broker serves the secret after a restart", "keyhatch --socket "+apiSocket+" get A >/dev/null")
	m.run("keyhatchctl register " + m.createProject("web") + "; keyhatch --socket " + projectsDir + "web/broker.sock get A >/dev/null")
}
