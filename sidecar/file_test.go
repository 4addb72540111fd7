package sidecar

import (
	"os"
	"testing"
)

// TestFileIsFollowed through every way to replace it, merged with a directory.
func TestFileIsFollowed(t *testing.T) {
	h := newHost(t)
	path := h.dir + "/conf/a.env"
	write(path, "A="+tripwire)
	h.write("DIR", tripwire)
	h.run(func(c *Config) { c.Store = Merged{File{path, Dotenv}, Dir{Path: h.store}} })
	h.has("A", "DIR")
	write(path, "B="+tripwire) // in place
	h.has("B", "DIR")
	write(h.dir+"/conf/next", "C="+tripwire) // by rename
	if err := os.Rename(h.dir+"/conf/next", path); err != nil {
		t.Fatal(err)
	}
	h.has("C", "DIR")
	write(h.dir+"/far/real", "D="+tripwire) // by a link, and behind it
	if err := os.Symlink(h.dir+"/far/real", h.dir+"/conf/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(h.dir+"/conf/link", path); err != nil {
		t.Fatal(err)
	}
	h.has("D", "DIR")
	write(h.dir+"/far/next", "E="+tripwire)
	if err := os.Rename(h.dir+"/far/next", h.dir+"/far/real"); err != nil {
		t.Fatal(err)
	}
	h.has("DIR", "E")
}
