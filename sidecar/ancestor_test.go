package sidecar

import (
	"os"
	"strings"
	"testing"
)

// TestAncestorsComeBack: the store goes with the directories above it, and is
// made again. Events alone find it.
func TestAncestorsComeBack(t *testing.T) {
	for name, store := range map[string]func(path string) Store{
		"dir":  func(path string) Store { return Dir{Path: path} },
		"file": func(path string) Store { return File{path + "/A", JSON} },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			top := h.dir + "/a"
			path := top + "/b/c/store"
			r := h.run(func(c *Config) { c.Store = store(path) }) // not there yet
			r.says(h, "the store cannot be used")
			if strings.Contains(r.log.String(), "not everything can be watched") {
				t.Error("what does not exist yet is called unwatchable")
			}
			text := `{"A": "` + tripwire + `"}`
			write(path+"/A", text)
			h.has("A")
			for range 3 {
				r.log.reset()
				if err := os.RemoveAll(top); err != nil {
					t.Fatal(err)
				}
				r.says(h, "the store cannot be used")
				r.log.reset()
				write(path+"/A", text)
				r.says(h, "well again")
			}
		})
	}
}
