package systemd

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const corePattern = "/proc/sys/kernel/core_pattern"

// setCorePattern sets the kernel's core pattern until the test ends. All
// containers share the pattern, so a second run of this test waits.
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
		requireOrSkip(t, false, "setting "+corePattern+" takes root on a machine that lets it: "+err.Error())
	}
	t.Cleanup(func() {
		if err := os.WriteFile(corePattern, original, 0); err != nil {
			t.Errorf("%s is not what it was, %q: %v", corePattern, original, err)
		}
	})
}

// coreDropIn removes all settings of the unit against core files and has the Go
// runtime request one, so that only the daemon's own protection is left.
const coreDropIn = `[Service]
LimitCORE=infinity
CoredumpFilter=all
Environment=GOTRACEBACK=crash
`

// controlUnit runs a control process with the daemon's confinement but without
// protection against core files.
const controlUnit = `[Service]
ExecStart=/bin/sleep infinity
User=keyhatch
Group=keyhatch
ProtectSystem=strict
LogsDirectory=keyhatch
LimitCORE=infinity
`

// TestDaemonLeavesNoCore kills the daemon with signals that dump core, and
// checks that the control process does leave a core file.
func TestDaemonLeavesNoCore(t *testing.T) {
	for _, target := range []string{"file", "pipe"} {
		t.Run(target, func(t *testing.T) {
			m := boot(t)
			m.overrideUnit("keyhatch.service", coreDropIn)
			m.writeFile("/etc/systemd/system/control.service", controlUnit)
			m.run("systemctl daemon-reload; systemctl start keyhatch.service control.service")
			// A file's path is that of the crashing process; its directory is one
			// that the daemon may write. A pipe's program is the kernel's own
			// machine's.
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
				m.waitFor("another daemon serves", "test $(systemctl show --property=InvocationID --value keyhatch.service) != "+before+
					" && systemctl is-active --quiet keyhatch.service")
			}
			m.run("systemctl kill --kill-who=main --signal=SEGV control.service")
			m.waitFor("the control has ended", "systemctl is-failed --quiet control.service")
			if log := m.run("journalctl --no-pager --output=cat --unit=control.service"); !strings.Contains(log, "code=dumped") {
				requireOrSkip(t, false, "this kernel makes no core of the control either:\n"+log)
			}
			log := m.run("journalctl --no-pager --output=cat --unit=keyhatch.service")
			if strings.Contains(log, "code=dumped") || !strings.Contains(log, "Main process exited") {
				t.Errorf("the kernel dumped the daemon:\n%s", log)
			}
			if got := cores(); strings.Contains(got, "keyhatchd") || !strings.Contains(got, "sleep") {
				t.Errorf("cores:\n%s\nwant the control's alone", got)
			}
		})
	}
}

// TestSameUserCannotRead: another process of the daemon's own user can look
// into one that is not hardened, and not into the daemon.
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
