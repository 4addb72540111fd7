package systemd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRestartsUnderLoadFailNoRequest restarts or kills the daemon a hundred times while
// clients send requests. No request may fail, and after each restart, the secrets must be
// loaded again within one second.
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
	// A container can mount the socket's directory or the socket file. With both mounts, gets
	// must still work after the last restart.
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
		t.Errorf("after the slowest restart, it took %v until the secrets were loaded again, want at most 1 s", percentile(100))
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
		t.Errorf("the registered projects are %v, want %v", names, want)
	}
	for _, name := range want {
		m.run("keyhatch --socket " + projectsDir + name + "/broker.sock get --wait 15s A >/dev/null")
	}
}

// TestDeclaredProjectsReturnAfterStop checks that the daemon serves declared projects again
// after a stop and a start, in the same directories. Requests of a client that waits must
// not fail during the stop.
func TestDeclaredProjectsReturnAfterStop(t *testing.T) {
	m := boot(t)
	m.run("systemctl start keyhatch.service; keyhatchctl register --persist " + m.createProject("api"))
	m.run("keyhatchctl register " + m.createProject("web"))
	m.startSidecar()
	m.run("mkdir /mnt/directory")
	l := startLoad(m, projectsDir+"api", "/mnt/directory", "/mnt/directory/broker.sock")
	before := m.run("stat -L --format=%i " + projectsDir + "api")
	// Stop keyhatch.socket too. Otherwise the sidecar would connect to the admin socket, and
	// systemd would start the daemon again.
	m.run("systemctl stop keyhatch.socket keyhatch.service")
	if state := m.run("systemctl is-active keyhatch.service || true"); state != "inactive" {
		t.Errorf("after the stop, the daemon is %s, want inactive", state)
	}
	m.run("systemctl start keyhatch.socket keyhatch.service")
	m.waitFor("the sidecar has pushed the secret", `keyhatchctl list | grep -qx A`)
	l.stopAndCheck("directory mount")
	if after := m.run("stat -L --format=%i " + projectsDir + "api"); after != before {
		t.Error("the stop and start replaced the directory of project api")
	}
	status := m.status()
	if len(status.Projects) != 1 || status.Projects[0].Name != "api" {
		t.Errorf("the projects after a stop and a start are %+v, want only the declared project api", status.Projects)
	}
}

// TestUnregisteredProjectStaysGoneAfterRestart checks that a restart does not restore a
// project that was unregistered, whether or not the project was declared.
func TestUnregisteredProjectStaysGoneAfterRestart(t *testing.T) {
	m := boot(t)
	m.run("systemctl start keyhatch.service; keyhatchctl register --persist " + m.createProject("api"))
	m.run("keyhatchctl register " + m.createProject("web"))
	m.run("keyhatchctl unregister web; systemctl restart keyhatch.service")
	if p := m.status().Projects; len(p) != 1 || p[0].Name != "api" {
		t.Errorf("the registered projects are %+v, want only api", p)
	}
	m.run("keyhatchctl unregister --persist api; systemctl restart keyhatch.service")
	if p := m.status().Projects; len(p) != 0 {
		t.Errorf("the registered projects are %+v, want no project", p)
	}
	if files := m.run("ls /etc/keyhatch/projects.d"); files != "" {
		t.Errorf("the declared projects are %s, want no project", files)
	}
}

// TestReloadServesNewDeclarations checks that systemctl reload registers newly declared
// projects. An invalid file in projects.d must not affect the other projects.
func TestReloadServesNewDeclarations(t *testing.T) {
	m := boot(t)
	m.run("systemctl start keyhatch.service; keyhatchctl register --persist " + m.createProject("api"))
	m.run("cd /etc/keyhatch/projects.d; sed 's/api/web/; /^devcontainer_ids/d; /^ *- /d' api.yaml >web.yaml; echo nonsense >wrong.yaml")
	checkServed := func(when string, want ...string) {
		t.Helper()
		var names []string
		for _, p := range m.status().Projects {
			names = append(names, string(p.Name))
		}
		if !slices.Equal(names, want) {
			t.Errorf("the projects %s are %v, want %v", when, names, want)
		}
	}
	m.run("systemctl reload keyhatch.service")
	m.waitFor("project web is served", "keyhatchctl projects | grep -q web")
	checkServed("after a reload", "api", "web")
	m.run("systemctl restart keyhatch.service")
	checkServed("after a restart", "api", "web")
	if log := m.run("journalctl --no-pager --output=cat --unit=keyhatch.service"); !strings.Contains(log, "wrong.yaml") {
		t.Error("the log does not name the invalid file")
	}
}
