package sidecar

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

// TestStoreIsFoundAgainWithItsParents removes the store together with the directories
// above it and creates them again. Events alone are enough to find the store.
func TestStoreIsFoundAgainWithItsParents(t *testing.T) {
	for name, newStore := range map[string]func(path string) store.Store{
		"dir":  func(path string) store.Store { return store.Dir{Path: path} },
		"file": func(path string) store.Store { return store.File{Path: path + "/A", Format: store.JSON} },
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHost(t)
			top := h.dir + "/a"
			path := top + "/b/c/store"
			r := h.runSidecar(func(c *Config) { c.Store = newStore(path) }) // does not exist yet
			r.waitForLog(h, "cannot read the store")
			if strings.Contains(r.log.String(), "cannot watch every directory") {
				t.Error("the log reports a missing directory as one that cannot be watched")
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

// TestFileChangesArePushed changes the file of a file store in every way. The store is
// merged with a directory.
func TestFileChangesArePushed(t *testing.T) {
	h := newTestHost(t)
	path := h.dir + "/conf/a.env"
	storetest.WriteFile(path, "A="+tripwire)
	h.writeSecret("DIR", tripwire)
	h.runSidecar(func(c *Config) {
		c.Store = store.Merged{store.File{Path: path, Format: store.Dotenv}, store.Dir{Path: h.store}}
	})
	h.waitForNames("A", "DIR")
	storetest.WriteFile(path, "B="+tripwire) // in place
	h.waitForNames("B", "DIR")
	storetest.WriteFile(h.dir+"/conf/next", "C="+tripwire) // by rename
	if err := os.Rename(h.dir+"/conf/next", path); err != nil {
		t.Fatal(err)
	}
	h.waitForNames("C", "DIR")
	storetest.WriteFile(h.dir+"/far/real", "D="+tripwire) // by a link, then by replacing its target
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

// TestExecRunsAgainWhenWatchPathChanges checks that the command runs again if a file in
// WatchPaths is written or replaced, and that another file in the same directory has no
// effect.
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
		t.Error("IsAffectedBy is true for another file, or false for the watched file")
	}
}

// TestEveryBadStoreKeepsPushedSet gives each bad store to a running sidecar. The broker
// keeps its secrets, and the log contains the error but no content of the store.
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
