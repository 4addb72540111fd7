package fdstore

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// TestFullStoreCanBePassed reads the limits in the shipped unit. With these limits, the service
// manager must be able to pass a full descriptor store to the broker. Otherwise the broker could
// not start again.
func TestFullStoreCanBePassed(t *testing.T) {
	unit, err := os.ReadFile("../../packaging/systemd/keyhatch.service")
	if err != nil {
		t.Fatal(err)
	}
	setting := func(name string) (value int) {
		for line := range strings.Lines(string(unit)) {
			if text, ok := strings.CutPrefix(line, name+"="); ok {
				if _, err := fmt.Sscan(text, &value); err != nil {
					t.Fatal(err)
				}
			}
		}
		return value
	}
	stored := setting("FileDescriptorStoreMax")
	if stored < 2001 { // a thousand projects, and the pipe of Verify
		t.Errorf("the store has only room for %d file descriptors", stored)
	}
	// The broker inherits all stored file descriptors at its start, and LimitNOFILE applies to them.
	if files := setting("LimitNOFILE"); files < stored+100 {
		t.Errorf("the unit stores up to %d file descriptors, but may open only %d files", stored, files)
	}
	project := schema.ProjectName(strings.Repeat("x", 64))
	if !schema.ValidProjectName(project) || schema.ValidProjectName(project+"x") {
		t.Fatal("the longest name of a project no longer has 64 bytes")
	}
	names := (len(listenerName(project)) + len(registrationName(math.MaxUint64)) + 2) * (stored/2 + 1)
	if size, most := len("LISTEN_FDNAMES=")+len(adminName)+names+1, 128<<10; size > most {
		t.Errorf("the names of the stored file descriptors have up to %d bytes, but the kernel passes only %d", size, most)
	}
}
