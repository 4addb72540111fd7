package systemd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRestartsUnderLoadFailNoRequest restarts and kills the daemon a hundred
// times under load.
func TestRestartsUnderLoadFailNoRequest(t *testing.T) {
	m := boot(t)
	m.addSettings("request_rate: 0")
	m.run("systemctl start keyhatch.service; keyhatchctl register " + m.createProject("api"))
	m.startSidecar()
	m.run("mkdir /mnt/directory; touch /mnt/file")
	loads := map[string]*load{
		"directory mount": startLoad(m, projectsDir+"api", "/mnt/directory", "/mnt/directory/broker.sock"),
		"file mount":      startLoad(m, projectsDir+"api/broker.sock", "/mnt/file", "/mnt/file"),
	}
	var r restartResult
	out, err := m.try("e2e restart 100")
	if err != nil {
		t.Error(err)
	} else if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	// Each mount must still work after the last restart.
	for name, l := range loads {
		l.stopAndCheck(name)
	}
	if len(r.RecoveryTimes) == 0 {
		return
	}
	slices.Sort(r.RecoveryTimes)
	percentile := func(percent int) time.Duration {
		return r.RecoveryTimes[(len(r.RecoveryTimes)-1)*percent/100].Round(time.Millisecond)
	}
	t.Logf("%d restarts; time until the secrets were loaded again: median %v, 90%% %v, slowest %v", len(r.RecoveryTimes), percentile(50), percentile(90), percentile(100))
	if percentile(100) > time.Second {
		t.Errorf("the sidecar pushed again %v after a restart, want at most 1 s", percentile(100))
	}
	var names []string
	for _, p := range m.status().Projects {
		names = append(names, string(p.Name))
	}
	want := []string{"api"}
	for i := range 10 {
		want = append(want, fmt.Sprintf("p%d", i))
	}
	if !slices.Equal(names, want) {
		t.Errorf("registered: %v, want %v", names, want)
	}
	for _, name := range want {
		m.run("keyhatch --socket " + projectsDir + name + "/broker.sock get --wait 15s A >/dev/null")
	}
}

// TestDeclaredProjectsReturnAfterStop checks that declared projects are served again
// after a stop and a start, in the same directories. A client that waits must not fail.
func TestDeclaredProjectsReturnAfterStop(t *testing.T) {
	m := boot(t)
	m.run("systemctl start keyhatch.service; keyhatchctl register --persist " + m.createProject("api"))
	m.run("keyhatchctl register " + m.createProject("web"))
	m.startSidecar()
	m.run("mkdir /mnt/directory")
	l := startLoad(m, projectsDir+"api", "/mnt/directory", "/mnt/directory/broker.sock")
	before := m.run("stat --format=%i " + projectsDir + "api")
	// The socket must be stopped too. Otherwise the sidecar's next attempt would start the
	// daemon.
	m.run("systemctl stop keyhatch.socket keyhatch.service")
	if state := m.run("systemctl is-active keyhatch.service || true"); state != "inactive" {
		t.Errorf("after the stop, the daemon is %s", state)
	}
	m.run("systemctl start keyhatch.socket keyhatch.service")
	m.waitFor("the sidecar has pushed", `keyhatchctl list | grep -qx A`)
	l.stopAndCheck("directory mount")
	if after := m.run("stat --format=%i " + projectsDir + "api"); after != before {
		t.Error("the directory was replaced")
	}
	status := m.status()
	if len(status.Projects) != 1 || status.Projects[0].Name != "api" {
		t.Errorf("after a stop and a start: %+v, want only the declared project", status.Projects)
	}
}

// TestUnregisteredProjectStaysGoneAfterRestart checks that a restart does not restore
// an unregistered project.
func TestUnregisteredProjectStaysGoneAfterRestart(t *testing.T) {
	m := boot(t)
	m.run("systemctl start keyhatch.service; keyhatchctl register --persist " + m.createProject("api"))
	m.run("keyhatchctl register " + m.createProject("web"))
	m.run("keyhatchctl unregister web; systemctl restart keyhatch.service")
	if p := m.status().Projects; len(p) != 1 || p[0].Name != "api" {
		t.Errorf("registered: %+v, want only api", p)
	}
	m.run("keyhatchctl unregister --persist api; systemctl restart keyhatch.service")
	if p := m.status().Projects; len(p) != 0 {
		t.Errorf("registered: %+v, want no project", p)
	}
	if files := m.run("ls /etc/keyhatch/projects.d"); files != "" {
		t.Errorf("declared: %s", files)
	}
}

// TestReloadServesNewDeclarations checks that a reload registers newly declared
// projects, and that an invalid file does not affect the other projects.
func TestReloadServesNewDeclarations(t *testing.T) {
	m := boot(t)
	m.run("systemctl start keyhatch.service; keyhatchctl register --persist " + m.createProject("api"))
	m.run("cd /etc/keyhatch/projects.d; sed s/api/web/ api.yaml >web.yaml; echo nonsense >wrong.yaml")
	checkServed := func(when string, want ...string) {
		t.Helper()
		var names []string
		for _, p := range m.status().Projects {
			names = append(names, string(p.Name))
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s: %v, want %v", when, names, want)
		}
	}
	m.run("systemctl reload keyhatch.service")
	m.waitFor("web is served", "keyhatchctl projects | grep -q web")
	checkServed("after a reload", "api", "web")
	m.run("systemctl restart keyhatch.service")
	checkServed("after a restart", "api", "web")
	if log := m.run("journalctl --no-pager --output=cat --unit=keyhatch.service"); !strings.Contains(log, "wrong.yaml") {
		t.Error("the log does not name the invalid file")
	}
}
