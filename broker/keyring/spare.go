package keyring

import (
	"sync"

	"github.com/keyhatch/keyhatch/broker/secmem"
)

// spareMemory keeps the wiped memory of a released snapshot for the next push, because the
// kernel needs about 4 ms to provide 1 MiB of new secret memory. So the keyring usually has
// two arenas, which it uses in turns.
type spareMemory struct {
	mu    sync.Mutex    // no other mutex may be locked while mu is locked
	arena *secmem.Arena // nil if there is no spare memory
	keeps bool          // false until a push and after a clear, so that put frees the memory
}

// take returns memory of at least size bytes. All its bytes are zero.
func (m *spareMemory) take(size int) (*secmem.Arena, error) {
	m.mu.Lock()
	arena := m.arena
	m.arena, m.keeps = nil, true
	m.mu.Unlock()
	if arena != nil && size <= len(arena.Bytes()) {
		return arena, nil
	}
	if arena != nil {
		arena.Free()
	}
	return secmem.New(size)
}

// put wipes the first used bytes of an arena. It then keeps the arena if it is larger than
// the spare memory, and frees the smaller one of the two.
func (m *spareMemory) put(arena *secmem.Arena, used int) {
	clear(arena.Bytes()[:used])
	m.mu.Lock()
	if m.keeps && (m.arena == nil || len(m.arena.Bytes()) < len(arena.Bytes())) {
		m.arena, arena = arena, m.arena
	}
	m.mu.Unlock()
	if arena != nil {
		arena.Free()
	}
}

// free frees the spare memory. Until the next push, put keeps no memory.
func (m *spareMemory) free() {
	m.mu.Lock()
	arena := m.arena
	m.arena, m.keeps = nil, false
	m.mu.Unlock()
	if arena != nil {
		arena.Free()
	}
}
