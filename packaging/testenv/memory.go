package testenv

import (
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"testing"
)

// RequireMemoryAccess skips the test, or lets it fail, if the test does not run as root (see
// Require). Only root can read the memory of an undumpable process.
func RequireMemoryAccess(t testing.TB) {
	t.Helper()
	Require(t, os.Geteuid() == 0, "reading the memory of an undumpable process requires root")
}

// A MemoryRegion is one mapping in the memory of a process, with its content. IsArena means
// that the mapping is excluded from core dumps, like the arenas of package secmem.
type MemoryRegion struct {
	Start   uint64
	Content []byte
	IsArena bool
}

// ReadMemory returns the readable memory of a process, except mappings of more than 256 MiB.
// Memory of memfd_secret is not readable. The test fails if ReadMemory can read nothing.
func ReadMemory(t testing.TB, pid int) iter.Seq[MemoryRegion] {
	t.Helper()
	mappings, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func(MemoryRegion) bool) {
		defer mem.Close()
		bytesRead := 0
		var start, end uint64
		var permissions string
		for line := range strings.Lines(string(mappings)) {
			var from, to uint64
			var mode string
			if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); n == 3 {
				start, end, permissions = from, to, mode // the first line of a mapping
			}
			flags, isLast := strings.CutPrefix(line, "VmFlags:")
			if !isLast || permissions[0] != 'r' || end-start > 1<<28 {
				continue
			}
			content := make([]byte, end-start)
			n, _ := mem.ReadAt(content, int64(start))
			bytesRead += n
			if !yield(MemoryRegion{start, content[:n], slices.Contains(strings.Fields(flags), "dd")}) {
				return
			}
		}
		if bytesRead == 0 {
			t.Fatalf("cannot read the memory of process %d", pid)
		}
	}
}
