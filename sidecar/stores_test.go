package sidecar

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

// TestAncestorsComeBack: the store goes with the directories above it, and is
// made again. Events alone find it.
func TestAncestorsComeBack(t *testing.T) {
	for name, newStore := range map[string]func(path string) store.Store{
		"dir":  func(path string) store.Store { return store.Dir{Path: path} },
		"file": func(path string) store.Store { return store.File{Path: path + "/A", Format: store.JSON} },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			top := h.dir + "/a"
			path := top + "/b/c/store"
			r := h.run(func(c *Config) { c.Store = newStore(path) }) // not there yet
			r.says(h, "the store cannot be used")
			if strings.Contains(r.log.String(), "not everything can be watched") {
				t.Error("what does not exist yet is called unwatchable")
			}
			text := `{"A": "` + tripwire + `"}`
			storetest.WriteFile(path+"/A", text)
			h.has("A")
			for range 3 {
				r.log.reset()
				if err := os.RemoveAll(top); err != nil {
					t.Fatal(err)
				}
				r.says(h, "the store cannot be used")
				r.log.reset()
				storetest.WriteFile(path+"/A", text)
				r.says(h, "well again")
			}
		})
	}
}

// TestFileIsFollowed through every way to replace it, merged with a directory.
func TestFileIsFollowed(t *testing.T) {
	h := newHost(t)
	path := h.dir + "/conf/a.env"
	storetest.WriteFile(path, "A="+tripwire)
	h.write("DIR", tripwire)
	h.run(func(c *Config) {
		c.Store = store.Merged{store.File{Path: path, Format: store.Dotenv}, store.Dir{Path: h.store}}
	})
	h.has("A", "DIR")
	storetest.WriteFile(path, "B="+tripwire) // in place
	h.has("B", "DIR")
	storetest.WriteFile(h.dir+"/conf/next", "C="+tripwire) // by rename
	if err := os.Rename(h.dir+"/conf/next", path); err != nil {
		t.Fatal(err)
	}
	h.has("C", "DIR")
	storetest.WriteFile(h.dir+"/far/real", "D="+tripwire) // by a link, and behind it
	if err := os.Symlink(h.dir+"/far/real", h.dir+"/conf/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(h.dir+"/conf/link", path); err != nil {
		t.Fatal(err)
	}
	h.has("D", "DIR")
	storetest.WriteFile(h.dir+"/far/next", "E="+tripwire)
	if err := os.Rename(h.dir+"/far/next", h.dir+"/far/real"); err != nil {
		t.Fatal(err)
	}
	h.has("DIR", "E")
}

// TestExecFollowsWhatItReads runs the command again when a file of Paths
// changes, by rename too, and not when a neighbour does.
func TestExecFollowsWhatItReads(t *testing.T) {
	h := newHost(t)
	storetest.WriteFile(h.dir+"/in/source", "A="+tripwire)
	source := h.dir + "/in/source"
	h.run(func(c *Config) {
		c.Store = store.Exec{Command: "cat " + source, Format: store.Dotenv, WatchPaths: []string{source}, Timeout: 10 * time.Second}
	})
	h.has("A")
	storetest.WriteFile(source, "B="+tripwire)
	h.has("B")
	storetest.WriteFile(h.dir+"/in/next", "C="+tripwire)
	if err := os.Rename(h.dir+"/in/next", source); err != nil {
		t.Fatal(err)
	}
	h.has("C")
	if e := (store.Exec{WatchPaths: []string{source}}); e.IsAffectedBy(h.dir+"/in/neighbour") || !e.IsAffectedBy(source) {
		t.Error("a neighbour concerns it, or it does not concern itself")
	}
}

// TestBadStoreKeepsLastGood gives a running sidecar each bad store in turn: the
// broker keeps what it had, and the error is said without content.
func TestBadStoreKeepsLastGood(t *testing.T) {
	h := newHost(t)
	h.write("GOOD", tripwire)
	turn := &turns{good: store.Dir{Path: h.store}}
	r := h.run(func(c *Config) { c.Store, c.Poll = turn, 5*time.Millisecond })
	h.has("GOOD")
	for _, c := range storetest.BadStores() {
		turn.set(c.Create(t.TempDir()))
		r.says(h, "the store cannot be used")
		turn.set(nil)
		r.says(h, "well again")
		r.log.reset()
	}
	if s := h.status(); s.Generation != 1 || s.SecretCount != 1 {
		t.Errorf("generation %d with %d secrets", s.Generation, s.SecretCount)
	}
}
