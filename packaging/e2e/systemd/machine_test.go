package systemd

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/e2e/engine"
	"github.com/keyhatch/keyhatch/schema"
)

const projects = "/run/keyhatch/projects/"

// A machine is a container with systemd as its first process, and keyhatch
// installed but not started.
type machine struct {
	t      *testing.T
	engine *engine.Engine
	id     string
}

// boot starts a machine, for as long as the test.
func boot(t *testing.T) *machine {
	t.Helper()
	w := openWorld(t)
	m := &machine{t: t, engine: w.engine}
	// CAP_SYS_ADMIN: systemd mounts, for the namespaces of its units.
	m.id = m.docker("run", "--detach", "--network=none", "--cap-add=SYS_ADMIN",
		"--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined",
		"--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
		"--tmpfs=/run", "--tmpfs=/tmp", "--env=container=docker", "--stop-signal=SIGRTMIN+3",
		w.image, "/sbin/init")
	t.Cleanup(func() {
		m.look()
		m.docker("rm", "--force", "--volumes", m.id)
	})
	m.booted()
	m.docker("cp", "--quiet", w.root+"/.", m.id+":/")
	m.run(`systemd-sysusers keyhatch.conf
		systemd-tmpfiles --create keyhatch.conf
		systemctl daemon-reload
		systemctl enable --quiet keyhatch.service`) // and with it the socket
	return m
}

func (m *machine) booted() {
	m.t.Helper()
	m.await("the system is up", `state=$(systemctl is-system-running); test "$state" = running || test "$state" = degraded`)
}

// look searches all that was logged for secrets, and shows it where the test
// failed.
func (m *machine) look() {
	log, err := m.try(`journalctl --no-pager --output=short-precise --lines=100000`)
	if err != nil {
		m.t.Errorf("the journal cannot be read: %v", err)
	}
	if strings.Contains(log, tripwire) {
		m.t.Error("a secret's value is in the journal")
	}
	if m.t.Failed() {
		m.t.Logf("the end of the journal:\n%s", log[max(0, len(log)-8000):])
	}
}

func (m *machine) docker(args ...string) string {
	m.t.Helper()
	out, err := m.engine.Docker(context.Background(), args...)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// try runs a script in the machine, as root, and returns its standard output.
func (m *machine) try(script string) (string, error) {
	return m.engine.Docker(context.Background(), "exec", m.id, "sh", "-euc", script)
}

func (m *machine) run(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// fails runs a script that must fail and say this.
func (m *machine) fails(script, says string) {
	m.t.Helper()
	if out, err := m.try(script); err == nil || !strings.Contains(out+err.Error(), says) {
		m.t.Errorf("%s: %s, %v; want a failure that says %q", script, out, err, says)
	}
}

// await runs a script until it succeeds, and gives up after half a minute.
func (m *machine) await(what, script string) {
	m.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, err := m.try(script)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			m.t.Fatalf("%s: it never came true: %s %v", what, out, err)
		}
	}
}

// write writes a file, with the directories above it.
func (m *machine) write(path, text string) {
	m.t.Helper()
	m.run(fmt.Sprintf("mkdir -p $(dirname %s)\ncat >%s <<'KEYHATCH-END'\n%s\nKEYHATCH-END\n", path, path, text))
}

// override changes a unit as an operator would.
func (m *machine) override(unit, text string) {
	m.t.Helper()
	m.write("/etc/systemd/system/"+unit+".d/test.conf", text)
	m.run("systemctl daemon-reload")
}

// configure adds settings to the daemon's. A load takes request_rate: 0.
func (m *machine) configure(settings string) {
	m.t.Helper()
	m.run("cat >>/etc/keyhatch/keyhatchd.yaml <<'KEYHATCH-END'\n" + settings + "\nKEYHATCH-END\n")
}

// project makes a project's tree, and returns its path.
func (m *machine) project(name string) string {
	m.t.Helper()
	m.write("/srv/"+name+"/.devcontainer/keyhatch.yaml", "schema_version: 1\nproject: "+name+"\nsecrets:\n  A:\n  MISSING:\n")
	return "/srv/" + name
}

// sidecar starts the sidecar on a store with one secret, A.
func (m *machine) sidecar() {
	m.t.Helper()
	m.run(`printf '` + tripwire + `-A\n' | setpriv --reuid=keyhatch-sidecar --regid=keyhatch-sidecar --init-groups \
			keyhatch-sidecar set A --store dir:/etc/keyhatch/secrets
		systemctl enable --quiet --now keyhatch-sidecar.service`)
	m.await("the sidecar has pushed", `keyhatchctl list | grep -qx A`)
}

func (m *machine) status() (status schema.StatusResponse) {
	m.t.Helper()
	if err := json.Unmarshal([]byte(m.run("keyhatchctl status --json")), &status); err != nil {
		m.t.Fatal(err)
	}
	return status
}

// show is a property of a unit.
func (m *machine) show(unit, property string) string {
	m.t.Helper()
	return m.run("systemctl show --property=" + property + " --value " + unit)
}

func (m *machine) reboot() {
	m.t.Helper()
	m.docker("stop", "--time=30", m.id)
	m.docker("start", m.id)
	m.booted()
}
