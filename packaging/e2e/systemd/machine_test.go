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

const projectsDir = "/run/keyhatch/projects/"

// A machine is a container whose first process is systemd. keyhatch is installed in the
// machine, but not started.
type machine struct {
	t      *testing.T
	engine *engine.Engine
	id     string
}

// boot starts a machine. The machine is removed when the test ends.
func boot(t *testing.T) *machine {
	t.Helper()
	w := openEnvironment(t)
	m := &machine{t: t, engine: w.engine}
	// systemd needs CAP_SYS_ADMIN to create mount namespaces for its units. /dev/fuse is
	// necessary because one of the tests mounts a FUSE file system.
	m.id = m.docker("run", "--detach", "--network=none", "--cap-add=SYS_ADMIN", "--device=/dev/fuse",
		"--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined",
		"--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
		"--tmpfs=/run", "--tmpfs=/tmp", "--env=container=docker", "--stop-signal=SIGRTMIN+3",
		w.image, "/sbin/init")
	t.Cleanup(func() {
		m.checkJournal()
		m.docker("rm", "--force", "--volumes", m.id)
	})
	m.waitForBoot()
	m.docker("cp", "--quiet", w.root+"/.", m.id+":/")
	m.run(`systemd-sysusers keyhatch.conf
		systemd-tmpfiles --create keyhatch.conf
		systemctl daemon-reload
		systemctl enable --quiet keyhatch.service`) // this command also enables keyhatch.socket
	return m
}

func (m *machine) waitForBoot() {
	m.t.Helper()
	m.waitFor("the machine has booted", `state=$(systemctl is-system-running); test "$state" = running || test "$state" = degraded`)
}

// checkJournal checks that the last 100,000 lines of the machine's journal contain no value of
// a secret. If the test has failed, checkJournal prints the end of the journal.
func (m *machine) checkJournal() {
	log, err := m.try(`journalctl --no-pager --output=short-precise --lines=100000`)
	if err != nil {
		m.t.Errorf("cannot read the journal: %v", err)
	}
	if strings.Contains(log, tripwire) {
		m.t.Error("the journal contains the value of a secret")
	}
	if m.t.Failed() {
		m.t.Logf("the end of the machine's journal is:\n%s", log[max(0, len(log)-8000):])
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

// try runs a shell script in the machine, as root, and returns the script's standard output.
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

// mustFail runs a shell script that must fail. The standard output or the standard error of
// the script must contain wantOutput.
func (m *machine) mustFail(script, wantOutput string) {
	m.t.Helper()
	if out, err := m.try(script); err == nil || !strings.Contains(out+err.Error(), wantOutput) {
		m.t.Errorf("the script %q printed %q, error %v; want a failure with %q in its output", script, out, err, wantOutput)
	}
}

// waitFor repeats a shell script until the script succeeds, for at most 30 seconds. The
// condition describes in words what the script checks.
func (m *machine) waitFor(condition, script string) {
	m.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, err := m.try(script)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("timed out while waiting until %s: the script printed %q, error %v", condition, out, err)
		}
	}
}

// writeFile writes a file in the machine. It also creates the file's parent directories.
func (m *machine) writeFile(path, text string) {
	m.t.Helper()
	m.run(fmt.Sprintf("mkdir -p $(dirname %s)\ncat >%s <<'KEYHATCH-END'\n%s\nKEYHATCH-END\n", path, path, text))
}

// overrideUnit adds a drop-in file to a systemd unit, and reloads systemd.
func (m *machine) overrideUnit(unit, text string) {
	m.t.Helper()
	m.writeFile("/etc/systemd/system/"+unit+".d/test.conf", text)
	m.run("systemctl daemon-reload")
}

// addSettings adds settings to the daemon's settings file. A test that sends many requests
// needs request_rate: 0, which turns off the request limit.
func (m *machine) addSettings(settings string) {
	m.t.Helper()
	m.run("cat >>/etc/keyhatch/keyhatchd.yaml <<'KEYHATCH-END'\n" + settings + "\nKEYHATCH-END\n")
}

// createProject creates a project's directory with a manifest, and returns the path of the
// directory. The allowlist contains the secrets A and MISSING.
func (m *machine) createProject(name string) string {
	m.t.Helper()
	m.writeFile("/srv/"+name+"/.devcontainer/keyhatch.yaml", "schema_version: 1\nproject: "+name+"\nsecrets:\n  A:\n  MISSING:\n")
	return "/srv/" + name
}

// startSidecar starts the sidecar with a store that contains only the secret A. It returns
// after the sidecar has pushed the secret.
func (m *machine) startSidecar() {
	m.t.Helper()
	m.run(`printf '` + tripwire + `-A\n' | setpriv --reuid=keyhatch-sidecar --regid=keyhatch-sidecar --init-groups \
			keyhatch-sidecar set A --store dir:/etc/keyhatch/secrets
		systemctl enable --quiet --now keyhatch-sidecar.service`)
	m.waitFor("the sidecar has pushed the secret", `keyhatchctl list | grep -qx A`)
}

func (m *machine) status() (status schema.StatusResponse) {
	m.t.Helper()
	if err := json.Unmarshal([]byte(m.run("keyhatchctl status --json")), &status); err != nil {
		m.t.Fatal(err)
	}
	return status
}

func (m *machine) unitProperty(unit, property string) string {
	m.t.Helper()
	return m.run("systemctl show --property=" + property + " --value " + unit)
}

func (m *machine) reboot() {
	m.t.Helper()
	m.docker("stop", "--time=30", m.id)
	m.docker("start", m.id)
	m.waitForBoot()
}
