package sidecar

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

// TestStoreIsFoundAgainWithItsParents removes a store together with the directories above
// it, and then creates all of them again. It checks that the sidecar finds the store
// again with file events, without polling.
func TestStoreIsFoundAgainWithItsParents(t *testing.T) {
	for name, newStore := range map[string]func(path string) store.Store{
		"dir":  func(path string) store.Store { return store.Dir{Path: path} },
		"file": func(path string) store.Store { return store.File{Path: path + "/A", Format: store.JSON} },
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHost(t)
			top := h.dir + "/a"
			path := top + "/b/c/store"
			r := h.runSidecar(func(c *Config) { c.Store = newStore(path) }) // path does not exist yet
			r.waitForLog(h, "cannot read the store")
			if strings.Contains(r.log.String(), "cannot watch all directories") {
				t.Error("the sidecar logged a warning that it cannot watch a directory; want no warning about a directory that does not exist yet")
			}
			text := `{"A": "` + tripwire + `"}`
			storetest.WriteFile(path+"/A", text)
			h.waitForNames("A")
			for range 3 {
				r.log.reset()
				if err := os.RemoveAll(top); err != nil {
					t.Fatal(err)
				}
				r.waitForLog(h, "cannot read the store")
				r.log.reset()
				storetest.WriteFile(path+"/A", text)
				r.waitForLog(h, "the store is readable again")
			}
		})
	}
}

// TestFileChangesArePushed changes the file of a file store in several ways, and checks
// that the sidecar pushes each change. The sidecar merges the file store with a directory
// store.
func TestFileChangesArePushed(t *testing.T) {
	h := newTestHost(t)
	path := h.dir + "/conf/a.env"
	storetest.WriteFile(path, "A="+tripwire)
	h.writeSecret("DIR", tripwire)
	h.runSidecar(func(c *Config) {
		c.Store = store.Merged{store.File{Path: path, Format: store.Dotenv}, store.Dir{Path: h.store}}
	})
	h.waitForNames("A", "DIR")
	storetest.WriteFile(path, "B="+tripwire) // change the file in place
	h.waitForNames("B", "DIR")
	storetest.WriteFile(h.dir+"/conf/next", "C="+tripwire) // replace the file by a rename
	if err := os.Rename(h.dir+"/conf/next", path); err != nil {
		t.Fatal(err)
	}
	h.waitForNames("C", "DIR")
	// Replace the file with a symbolic link. Then replace the target of the link.
	storetest.WriteFile(h.dir+"/far/real", "D="+tripwire)
	if err := os.Symlink(h.dir+"/far/real", h.dir+"/conf/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(h.dir+"/conf/link", path); err != nil {
		t.Fatal(err)
	}
	h.waitForNames("D", "DIR")
	storetest.WriteFile(h.dir+"/far/next", "E="+tripwire)
	if err := os.Rename(h.dir+"/far/next", h.dir+"/far/real"); err != nil {
		t.Fatal(err)
	}
	h.waitForNames("DIR", "E")
}

// TestBadStoreDoesNotDelayOtherStores makes one of two stores unreadable. It checks that the broker
// keeps the old secrets of this store, and that a removal in the other store is pushed.
func TestBadStoreDoesNotDelayOtherStores(t *testing.T) {
	h := newTestHost(t)
	path := h.dir + "/conf/a.env"
	storetest.WriteFile(path, "A="+tripwire)
	h.writeSecret("B", tripwire)
	h.writeSecret("C", tripwire)
	r := h.runSidecar(func(c *Config) {
		c.Store = store.Merged{store.Dir{Path: h.store}, store.File{Path: path, Format: store.Dotenv}}
	})
	h.waitForNames("A", "B", "C")
	storetest.WriteFile(path, "A=\""+tripwire)
	r.waitForLog(h, path+": line 1: ")
	os.Remove(h.store + "/B")
	h.waitForNames("A", "C")
	h.waitUntil("the broker knows that the store has a problem", func() bool { return h.status().StoreProblems == 1 })
	os.Remove(path)
	h.writeSecret("D", tripwire)
	h.waitForNames("A", "C", "D")
	storetest.WriteFile(path, "E="+tripwire)
	h.waitForNames("C", "D", "E")
	r.waitForLog(h, "the store is readable again")
}

// TestExecRunsAgainWhenWatchPathChanges checks that the sidecar runs the command of an
// exec store again if a file in WatchPaths is written or replaced. It also checks that a
// change of another file in the same directory does not affect the store.
func TestExecRunsAgainWhenWatchPathChanges(t *testing.T) {
	h := newTestHost(t)
	storetest.WriteFile(h.dir+"/in/source", "A="+tripwire)
	source := h.dir + "/in/source"
	h.runSidecar(func(c *Config) {
		c.Store = store.Exec{Command: "cat " + source, Format: store.Dotenv, WatchPaths: []string{source}, Timeout: 10 * time.Second}
	})
	h.waitForNames("A")
	storetest.WriteFile(source, "B="+tripwire)
	h.waitForNames("B")
	storetest.WriteFile(h.dir+"/in/next", "C="+tripwire)
	if err := os.Rename(h.dir+"/in/next", source); err != nil {
		t.Fatal(err)
	}
	h.waitForNames("C")
	if e := (store.Exec{WatchPaths: []string{source}}); e.IsAffectedBy(h.dir+"/in/neighbour") || !e.IsAffectedBy(source) {
		t.Error("IsAffectedBy returned true for another file in the directory, or false for the watched file")
	}
}

// TestEveryBadStoreKeepsPushedSet lets a running sidecar read each bad store of package
// storetest. It checks that the sidecar logs an error, and that the secrets in the broker
// do not change. The log must contain no content of the store.
func TestEveryBadStoreKeepsPushedSet(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("GOOD", tripwire)
	switchable := &switchableStore{good: store.Dir{Path: h.store}}
	r := h.runSidecar(func(c *Config) { c.Store, c.Poll = switchable, 5*time.Millisecond })
	h.waitForNames("GOOD")
	for _, c := range storetest.BadStores() {
		switchable.set(c.Create(t.TempDir()))
		r.waitForLog(h, "cannot read the store")
		switchable.set(nil)
		r.waitForLog(h, "the store is readable again")
		r.log.reset()
	}
	if s := h.status(); s.Generation != 1 || s.SecretCount != 1 {
		t.Errorf("generation %d with %d secrets, want generation 1 with 1 secret", s.Generation, s.SecretCount)
	}
}
