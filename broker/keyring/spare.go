package keyring

import (
	"cmp"
	"slices"
	"sync"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
)

const (
	// minArena is the smallest size of an arena in bytes. It is one memory page on most
	// machines.
	minArena = 4 << 10

	// maxSpares is the number of arenas that spareMemory keeps: one for the request line of
	// the next push, and one for its snapshot.
	maxSpares = 2

	// maxSpareFactor limits the size of a kept arena to a multiple of the last snapshot.
	// The memory of a request line can be larger than the line (see LineBuffer.Grow).
	maxSpareFactor = 8
)

// spareMemory keeps wiped memory for the next push, because the kernel needs about 4 ms to
// provide 1 MiB of new secret memory. It gets this memory from request lines and from released
// snapshots. Before it allocates memory, it frees the memory that it keeps. So the kept memory
// never prevents a push.
type spareMemory struct {
	mu     sync.Mutex      // no other mutex may be locked while mu is locked
	arenas []*secmem.Arena // sorted by size; all their bytes are zero
	limit  int             // maximum size of a kept arena; 0 until a push and after a clear
}

// take returns memory of at least size bytes for a snapshot. All its bytes are zero.
func (m *spareMemory) take(size int) (*secmem.Arena, error) {
	m.mu.Lock()
	m.limit = maxSpareFactor * max(size, minArena)
	arena, unneeded := m.removeLocked(func(a *secmem.Arena) bool { return size <= len(a.Bytes()) && m.mayKeepLocked(a) })
	m.mu.Unlock()
	freeAll(unneeded)
	if arena != nil {
		return arena, nil
	}
	return secmem.New(size)
}

// takeLargest returns the largest kept memory if it has at least size bytes. Otherwise, it
// returns new memory of newSize bytes. All bytes are zero.
func (m *spareMemory) takeLargest(size, newSize int) (*secmem.Arena, error) {
	m.mu.Lock()
	last := len(m.arenas) - 1
	arena, unneeded := m.removeLocked(func(a *secmem.Arena) bool { return size <= len(a.Bytes()) && a == m.arenas[last] })
	m.mu.Unlock()
	freeAll(unneeded)
	if arena != nil {
		return arena, nil
	}
	return secmem.New(newSize)
}

// removeLocked removes and returns the first kept arena that fits. If no arena fits, it removes
// all arenas. The calling function must free them.
func (m *spareMemory) removeLocked(fits func(*secmem.Arena) bool) (arena *secmem.Arena, unneeded []*secmem.Arena) {
	i := slices.IndexFunc(m.arenas, fits)
	if i < 0 {
		unneeded, m.arenas = m.arenas, nil
		return nil, unneeded
	}
	arena = m.arenas[i]
	m.arenas = slices.Delete(m.arenas, i, i+1)
	return arena, nil
}

// put wipes the first used bytes of an arena, and keeps or frees it. The other bytes must be
// zero.
func (m *spareMemory) put(arena *secmem.Arena, used int) {
	clear(arena.Bytes()[:used])
	var unneeded []*secmem.Arena
	m.mu.Lock()
	m.arenas = append(m.arenas, arena)
	m.arenas = slices.DeleteFunc(m.arenas, func(a *secmem.Arena) bool {
		if m.mayKeepLocked(a) {
			return false
		}
		unneeded = append(unneeded, a)
		return true
	})
	slices.SortFunc(m.arenas, func(a, b *secmem.Arena) int { return cmp.Compare(len(a.Bytes()), len(b.Bytes())) })
	if len(m.arenas) > maxSpares {
		unneeded = append(unneeded, m.arenas[0])
		m.arenas = slices.Delete(m.arenas, 0, 1)
	}
	m.mu.Unlock()
	freeAll(unneeded)
}

// mayKeepLocked reports whether an arena may be kept. If the limit of locked memory was
// reached, the arena is not locked, but the next one can be.
func (m *spareMemory) mayKeepLocked(arena *secmem.Arena) bool {
	return len(arena.Bytes()) <= m.limit && arena.Kind() != schema.MemoryUnlocked
}

// free frees all kept memory. Until the next push, put keeps no memory.
func (m *spareMemory) free() {
	m.mu.Lock()
	unneeded := m.arenas
	m.arenas, m.limit = nil, 0
	m.mu.Unlock()
	freeAll(unneeded)
}

func freeAll(arenas []*secmem.Arena) {
	for _, arena := range arenas {
		arena.Free()
	}
}
