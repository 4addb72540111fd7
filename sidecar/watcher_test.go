package sidecar

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

// TestWatcherAddsCommonDirectoryOnce watches two stores with the same parent directory, also
// through a symbolic link. It checks that only the first call of setDirs reports an added
// directory, because each added directory causes another read of the stores. It also checks that
// the watcher still reports a change.
func TestWatcherAddsCommonDirectoryOnce(t *testing.T) {
	dir := t.TempDir()
	storetest.WriteFile(dir+"/real/secrets/A", tripwire)
	if err := os.Symlink("real", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, parent := range []string{"/real", "/link"} {
		stores := store.Merged{store.File{Path: dir + parent + "/.env", Format: store.Dotenv}, store.Dir{Path: dir + "/real/secrets"}}
		w := newWatcher(discardLogger(), stores.IsAffectedBy)
		defer w.close()
		for i, want := range []bool{true, false, false} {
			if got := w.setDirs(stores.WatchDirs()); got != want {
				t.Errorf("%s: call %d of setDirs returned %v, want %v", parent, i+1, got, want)
			}
		}
		storetest.WriteFile(dir+parent+"/.env", "B="+tripwire)
		<-w.changes
	}
}

// TestPollingUnderInotifyLimits runs a sidecar that cannot create an inotify instance or
// an inotify watch. It checks that the sidecar logs one warning and detects every change
// with polling. The test sets the inotify limits in a new user namespace, so the limits
// do not affect other processes.
func TestPollingUnderInotifyLimits(t *testing.T) {
	const limitEnv = "KEYHATCH_TEST_NO_INOTIFY"
	if limit := os.Getenv(limitEnv); limit != "" {
		if err := os.WriteFile("/proc/sys/user/"+limit, []byte("0"), 0); err != nil {
			t.Fatal("cannot set the inotify limit: ", err)
		}
		h := newTestHost(t)
		h.writeSecret("A", tripwire)
		r := h.runSidecar(func(c *Config) { c.Poll = 10 * time.Millisecond })
		h.waitForNames("A")
		h.writeSecret("B", tripwire)
		h.waitForNames("A", "B")
		if err := os.Remove(h.store + "/A"); err != nil {
			t.Fatal(err)
		}
		h.waitForNames("B")
		r.stop()
		if n := strings.Count(r.log.String(), "polling still detects changes"); n != 1 {
			t.Errorf("the sidecar logged the warning about inotify %d times, want 1", n)
		}
		return
	}
	for _, limit := range []string{"max_inotify_instances", "max_inotify_watches"} {
		t.Run(limit, func(t *testing.T) {
			t.Setenv(limitEnv, limit)
			runTestInNamespaces(t, "TestPollingUnderInotifyLimits", syscall.CLONE_NEWUSER)
		})
	}
}
