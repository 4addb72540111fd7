package systemd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRestartStorm: a hundred restarts and kills under load, and nobody notices.
func TestRestartStorm(t *testing.T) {
	m := boot(t)
	m.configure("request_rate: 0")
	m.run("systemctl start keyhatch.service; keyhatchctl register " + m.project("api"))
	m.sidecar()
	m.run("mkdir /mnt/directory; touch /mnt/file")
	loads := map[string]*load{
		"directory mount": mounted(m, projects+"api", "/mnt/directory", "/mnt/directory/broker.sock"),
		"file mount":      mounted(m, projects+"api/broker.sock", "/mnt/file", "/mnt/file"),
	}
	var r stormResult
	out, err := m.try("e2e storm 100")
	if err != nil {
		t.Error(err)
	} else if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	// A get of each mount after the last restart.
	for name, l := range loads {
		l.end(name)
	}
	if len(r.Healed) == 0 {
		return
	}
	slices.Sort(r.Healed)
	at := func(percent int) time.Duration {
		return r.Healed[(len(r.Healed)-1)*percent/100].Round(time.Millisecond)
	}
	t.Logf("%d restarts; the secrets were back after: median %v, 90%% %v, slowest %v", len(r.Healed), at(50), at(90), at(100))
	if at(100) > time.Second {
		t.Errorf("the sidecar pushed again %v after a restart, want at most 1 s", at(100))
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
		m.run("keyhatch --socket " + projects + name + "/broker.sock get --wait 15s A >/dev/null")
	}
}

// TestStopThenStart: what is declared is served again, in directories that were
// mounted before; a client that waits does not fail.
func TestStopThenStart(t *testing.T) {
	m := boot(t)
	m.run("systemctl start keyhatch.service; keyhatchctl register --persist " + m.project("api"))
	m.run("keyhatchctl register " + m.project("web"))
	m.sidecar()
	m.run("mkdir /mnt/directory")
	l := mounted(m, projects+"api", "/mnt/directory", "/mnt/directory/broker.sock")
	before := m.run("stat --format=%i " + projects + "api")
	// Without the socket, which the sidecar's next try would start the daemon by.
	m.run("systemctl stop keyhatch.socket keyhatch.service")
	if state := m.run("systemctl is-active keyhatch.service || true"); state != "inactive" {
		t.Errorf("the stopped daemon is %s", state)
	}
	m.run("systemctl start keyhatch.socket keyhatch.service")
	m.await("the sidecar has pushed", `keyhatchctl list | grep -qx A`)
	l.end("directory mount")
	if after := m.run("stat --format=%i " + projects + "api"); after != before {
		t.Error("the directory was replaced")
	}
	status := m.status()
	if len(status.Projects) != 1 || status.Projects[0].Name != "api" {
		t.Errorf("after a stop and a start: %+v, want what is declared", status.Projects)
	}
}

// TestUnregister: what was taken offline does not come back with a restart.
func TestUnregister(t *testing.T) {
	m := boot(t)
	m.run("systemctl start keyhatch.service; keyhatchctl register --persist " + m.project("api"))
	m.run("keyhatchctl register " + m.project("web"))
	m.run("keyhatchctl unregister web; systemctl restart keyhatch.service")
	if p := m.status().Projects; len(p) != 1 || p[0].Name != "api" {
		t.Errorf("registered: %+v, want api alone", p)
	}
	m.run("keyhatchctl unregister --persist api; systemctl restart keyhatch.service")
	if p := m.status().Projects; len(p) != 0 {
		t.Errorf("registered: %+v, want nothing", p)
	}
	if files := m.run("ls /etc/keyhatch/projects.d"); files != "" {
		t.Errorf("declared: %s", files)
	}
}

// TestDeclarations: a reload takes what was declared meanwhile, and a file that
// is wrong keeps no other from being served.
func TestDeclarations(t *testing.T) {
	m := boot(t)
	m.run("systemctl start keyhatch.service; keyhatchctl register --persist " + m.project("api"))
	m.run("cd /etc/keyhatch/projects.d; sed s/api/web/ api.yaml >web.yaml; echo nonsense >wrong.yaml")
	serves := func(when string, want ...string) {
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
	m.await("web is served", "keyhatchctl projects | grep -q web")
	serves("after a reload", "api", "web")
	m.run("systemctl restart keyhatch.service")
	serves("after a restart", "api", "web")
	if log := m.run("journalctl --no-pager --output=cat --unit=keyhatch.service"); !strings.Contains(log, "wrong.yaml") {
		t.Error("the log does not say which file is wrong")
	}
}
