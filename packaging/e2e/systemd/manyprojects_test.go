package systemd

import (
	"strings"
	"testing"
)

// TestRestartWithManyDeclaredProjects restarts a broker with 1,000 declared projects. systemd
// must store and pass two file descriptors for each project, which is more than the default
// limit of open files.
func TestRestartWithManyDeclaredProjects(t *testing.T) {
	m := boot(t)
	m.run(`mkdir -p /etc/keyhatch/projects.d
		for i in $(seq 1000); do
			cat >/etc/keyhatch/projects.d/p$i.yaml <<END
path: /srv/p$i
manifest: |
    schema_version: 1
    project: p$i
    secrets: {A: , B: , C: }
END
		done`)
	for _, command := range []string{"start", "restart"} {
		before := m.run("date +%s%N")
		m.run("systemctl " + command + " keyhatch.service")
		t.Logf("systemctl %s: %s", command, m.run("echo $((($(date +%s%N) - "+strings.TrimSpace(before)+") / 1000000)) ms"))
		// The broker is ready before systemd has stored the projects of the first start.
		m.waitFor("systemd stores all projects", `[ "$(systemctl show --property=NFileDescriptorStore --value keyhatch.service)" = 2000 ]`)
		if status := m.run("keyhatchctl status"); !strings.Contains(status, "keeps all projects") || !strings.Contains(status, "projects  1000") {
			t.Errorf("after systemctl %s, the status is %.1000s", command, status)
		}
	}
}
