package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"golang.org/x/sys/unix"
)

// TestSameUIDCannotOpenInputOfReadingChild starts an attacker with the uid of the sidecar. For each
// process that reads the store, the attacker tries to open the standard input of the process from
// the moment at which the process appears until the process ends. The standard input contains all
// old secrets. The attacker must fail for each of 40 processes.
//
// The attacker must also fail if the uid cannot read the program file of the sidecar. This sidecar
// cannot copy its program, and must log no warning.
//
// To check the test itself, the test also runs a sidecar that cannot create a memfd. This sidecar
// must log a warning, and the attacker must succeed.
func TestSameUIDCannotOpenInputOfReadingChild(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "running a sidecar as another uid requires root")
	for _, kind := range []string{"copied", "unreadable", "neither"} {
		t.Run(kind, func(t *testing.T) {
			protected := kind != "neither"
			h := newTestHost(t, 65533)
			if kind == "unreadable" {
				path := h.dir + "/keyhatch-sidecar"
				if err := errors.Join(os.Chown(path, 0, 0), os.Chmod(path, 0o711)); err != nil {
					t.Fatal(err)
				}
			}
			// Copy the test program, because the uid cannot access the directory of the original.
			program := h.dir + "/test"
			if output, err := exec.Command("cp", os.Args[0], program).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
			run := []string{h.dir + "/keyhatch-sidecar", "run", "--socket", h.adminSocket(), "--store", "dir:" + h.dir + "/store", "--poll", "20ms"}
			var sidecar *process
			if protected {
				sidecar = h.start(run[0], run[1:]...)
			} else {
				cmd := h.command(program, run...)
				cmd.Env = append(os.Environ(), "KEYHATCH_TEST_AS=program-without-memfd")
				sidecar = startProcess(t, cmd)
				sidecar.waitForLine("level=WARN msg=\"while the sidecar reads the store, another process of the same user can read the secrets\"")
			}
			if output := sidecar.waitForLine("secrets=0 generation=1"); strings.Contains(output, "level=WARN") {
				t.Errorf("the sidecar has logged a warning:\n%s", output)
			}
			cmd := h.command(program, fmt.Sprint(sidecar.cmd.Process.Pid))
			cmd.Env = append(os.Environ(), "KEYHATCH_TEST_AS=attacker")
			attacker := startProcess(t, cmd)
			if !protected {
				attacker.waitForLine("opened")
				return
			}
			for range 40 {
				if !attacker.stderr.Scan() {
					t.Fatal("the attacker has ended")
				}
				if line := attacker.stderr.Text(); line != "denied" {
					t.Fatalf("the attacker has printed %q", line)
				}
			}
		})
	}
}

// openInputOfChildren tries to open the standard input of each new child process of a process. For each
// child process, it prints the result.
func openInputOfChildren(parent string) {
	known := map[string]bool{}
	for {
		proc, err := os.Open("/proc")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		names, _ := proc.Readdirnames(-1)
		proc.Close()
		for _, pid := range names {
			if pid[0] < '0' || pid[0] > '9' || known[pid] {
				continue
			}
			known[pid] = true
			stat, _ := os.ReadFile("/proc/" + pid + "/stat")
			_, rest, _ := strings.Cut(string(stat), ") ")
			if fields := strings.Fields(rest); len(fields) < 2 || fields[1] != parent {
				continue
			}
			result := "denied"
			for {
				fd, err := unix.Open("/proc/"+pid+"/fd/0", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
				if err == nil {
					unix.Close(fd)
					result = "opened"
				}
				if err == unix.ENOENT || err == unix.ESRCH || result == "opened" {
					break
				}
			}
			fmt.Fprintln(os.Stderr, result)
		}
	}
}
