package keyring

import (
	"cmp"
	"slices"
	"sync"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
)

const (
	// minArena is the smallest possible size of an arena, in bytes. An arena consists of whole
	// memory pages, and a page has at least 4 KiB.
	minArena = 4 << 10

	// maxSpares is the number of arenas that spareMemory keeps: one for the request line of
	// the next push, and one for its snapshot.
	maxSpares = 2

	// maxSpareFactor limits the size of a kept arena to a multiple of the last snapshot's size.
	// The factor is larger than 1, because the memory of a request line can be larger than the
	// line (see LineBuffer.Grow).
	maxSpareFactor = 8
)

// spareMemory keeps wiped memory for the next push, because the kernel needs about 4 ms to
// provide 1 MiB of new secret memory. spareMemory gets this memory from the buffers of request lines
// and from released snapshots. If none of the kept memory fits, take and takeLargest free all kept
// memory before they allocate new memory. Otherwise, the new memory and the kept memory together could exceed the limit of locked memory.
type spareMemory struct {
	mu     sync.Mutex      // lock no other mutex while mu is locked
	arenas []*secmem.Arena // sorted by size; all their bytes are zero
	limit  int             // maximum size of a kept arena in bytes; 0 after a clear, and before any push
}

// take returns an arena of at least size bytes for a snapshot. All bytes of the arena are zero.
// take also sets m.limit, so that spareMemory keeps no arena that is much larger than the snapshot.
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

// takeLargest returns the largest kept arena if this arena has at least size bytes. Otherwise, it
// returns a new arena of at least newSize bytes. All bytes of the returned arena are zero.
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

// removeLocked removes and returns the first kept arena for which fits returns true. If there is
// no such arena, it removes all kept arenas and returns them as unneeded, and the calling
// function must free them.
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

// put wipes an arena, and keeps or frees it. put wipes only as many bytes at the start of the
// arena as the argument used specifies. The other bytes must already be zero.
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

// mayKeepLocked reports whether spareMemory may keep an arena. If the limit of locked memory was
// reached when an arena was created, the arena is not locked, and spareMemory must not keep it.
// The kernel may be able to lock the next new arena.
func (m *spareMemory) mayKeepLocked(arena *secmem.Arena) bool {
	return len(arena.Bytes()) <= m.limit && arena.Kind() != schema.MemoryUnlocked
}

// free frees all kept memory. After that, put keeps no memory until the next push.
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
