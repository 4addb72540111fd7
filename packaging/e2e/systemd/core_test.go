package systemd

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keyhatch/keyhatch/packaging/testenv"
)

const corePattern = "/proc/sys/kernel/core_pattern"

// setCorePattern sets the kernel's core pattern until the test ends. All containers share
// the core pattern. Therefore setCorePattern locks the file core_pattern, so that another
// run of this test waits.
func setCorePattern(t *testing.T, pattern string) {
	t.Helper()
	lock, err := os.Open(corePattern)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	original, err := os.ReadFile(corePattern)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(corePattern, []byte(pattern), 0); err != nil {
		testenv.Require(t, false, "cannot write "+corePattern+", which only root can write: "+err.Error())
	}
	t.Cleanup(func() {
		if err := os.WriteFile(corePattern, original, 0); err != nil {
			t.Errorf("cannot restore %s to %q: %v", corePattern, original, err)
		}
	})
}

// coreDropIn is a drop-in file that allows core dumps. It turns off the unit's settings
// against core dumps, and makes the Go runtime request a core dump after a crash. The only
// protection that remains is in the code of the daemon.
const coreDropIn = `[Service]
LimitCORE=infinity
CoredumpFilter=all
Environment=GOTRACEBACK=crash
`

// controlUnit runs a control process, sleep, with the user and the file access of the
// daemon. The control process has no protection against core dumps.
const controlUnit = `[Service]
ExecStart=/bin/sleep infinity
User=keyhatch
Group=keyhatch
ProtectSystem=strict
LogsDirectory=keyhatch
LimitCORE=infinity
`

// TestDaemonLeavesNoCore kills the daemon with signals that cause core dumps, and checks
// that the kernel writes no core dump. To check the test itself, it also kills an
// unprotected control process. The kernel must write a core dump of the control process.
func TestDaemonLeavesNoCore(t *testing.T) {
	for _, target := range []string{"file", "pipe"} {
		t.Run(target, func(t *testing.T) {
			m := boot(t)
			m.overrideUnit("keyhatch.service", coreDropIn)
			m.writeFile("/etc/systemd/system/control.service", controlUnit)
			m.run("systemctl daemon-reload; systemctl start keyhatch.service control.service")
			// If the core pattern is a file, the kernel resolves its path in the container
			// of the crashing process. Therefore the path must be in a directory to which
			// the daemon can write. If the core pattern is a pipe, the kernel starts the
			// pipe's program on the host.
			pattern, cores := "/var/log/keyhatch/core.%e.%p", func() string { return m.run("ls /var/log/keyhatch") }
			if target == "pipe" {
				dir := t.TempDir()
				if err := os.WriteFile(dir+"/take", []byte("#!/bin/sh\nexec cat >"+dir+"/core.$1.$2\n"), 0o755); err != nil {
					t.Fatal(err)
				}
				pattern = "|" + dir + "/take %e %P"
				cores = func() string {
					var names []string
					entries, _ := os.ReadDir(dir)
					for _, e := range entries {
						if e.Name() != "take" {
							names = append(names, e.Name())
						}
					}
					return strings.Join(names, "\n")
				}
			}
			setCorePattern(t, pattern)
			for _, signal := range []string{"SEGV", "ABRT", "QUIT"} {
				before := m.unitProperty("keyhatch.service", "InvocationID")
				m.run("systemctl kill --kill-who=main --signal=" + signal + " keyhatch.service")
				m.waitFor("a new daemon is running", "test $(systemctl show --property=InvocationID --value keyhatch.service) != "+before+
					" && systemctl is-active --quiet keyhatch.service")
			}
			m.run("systemctl kill --kill-who=main --signal=SEGV control.service")
			m.waitFor("the control process has ended", "systemctl is-failed --quiet control.service")
			if log := m.run("journalctl --no-pager --output=cat --unit=control.service"); !strings.Contains(log, "code=dumped") {
				testenv.Require(t, false, "this kernel does not write a core dump of the unprotected control process:\n"+log)
			}
			log := m.run("journalctl --no-pager --output=cat --unit=keyhatch.service")
			if strings.Contains(log, "code=dumped") || !strings.Contains(log, "Main process exited") {
				t.Errorf("the kernel wrote a core dump of the daemon, or the daemon did not exit:\n%s", log)
			}
			if got := cores(); strings.Contains(got, "keyhatchd") || !strings.Contains(got, "sleep") {
				t.Errorf("the core dumps are:\n%s\nwant only the core dump of the control process (sleep)", got)
			}
		})
	}
}

// TestSameUserCannotRead checks that another process of the daemon's user cannot open the
// files in /proc with the daemon's memory, mappings, environment, and file descriptors. To
// check the test itself, it opens the same files of an unprotected process of the same user.
func TestSameUserCannotRead(t *testing.T) {
	m := boot(t)
	m.writeFile("/etc/systemd/system/control.service", controlUnit)
	m.run("systemctl daemon-reload; systemctl start keyhatch.service control.service")
	for _, file := range []string{"mem", "maps", "environ", "fd"} {
		open := func(unit string) string {
			path := "/proc/" + m.unitProperty(unit, "MainPID") + "/" + file
			read := "exec <" + path
			if file == "fd" {
				read = "ls " + path
			}
			return "setpriv --reuid=keyhatch --regid=keyhatch --init-groups sh -c '" + read + "'"
		}
		m.run(open("control.service"))
		m.mustFail(open("keyhatch.service"), "ermission denied")
	}
}
