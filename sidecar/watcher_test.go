package sidecar

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestNoInotify runs a sidecar where the system has no inotify instance, or no
// watch, to give: it says so once, and polling finds every change. The limits are
// those of a user namespace of the test's own, so nobody else feels them.
func TestNoInotify(t *testing.T) {
	const child = "KEYHATCH_TEST_NO_INOTIFY"
	if limit := os.Getenv(child); limit != "" {
		if err := os.WriteFile("/proc/sys/user/"+limit, []byte("0"), 0); err != nil {
			t.Fatal("setting the limit: ", err)
		}
		h := newHost(t)
		h.write("A", tripwire)
		r := h.run(func(c *Config) { c.Poll = 10 * time.Millisecond })
		h.has("A")
		h.write("B", tripwire)
		h.has("A", "B")
		if err := os.Remove(h.store + "/A"); err != nil {
			t.Fatal(err)
		}
		h.has("B")
		r.stop()
		if n := strings.Count(r.log.String(), "polling finds"); n != 1 {
			t.Errorf("it was said %d times that there are no events", n)
		}
		return
	}
	for _, limit := range []string{"max_inotify_instances", "max_inotify_watches"} {
		t.Run(limit, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestNoInotify$", "-test.v")
			cmd.Env = append(os.Environ(), child+"="+limit)
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			}
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				need(t, false, "no user namespace here: "+err.Error())
			}
			if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "--- PASS: TestNoInotify") {
				t.Errorf("%v\n%s", err, out.String())
			}
		})
	}
}
