//go:build !race

package secmem

import (
	"fmt"
	"unsafe"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// New returns an arena of at least size bytes, of the best kind there is. Where
// locked memory cannot be had (RLIMIT_MEMLOCK counts both of the good kinds)
// the arena is unlocked and says so; only an exhausted address space or memory
// limit is an error.
func New(size int) (*Arena, error) {
	size = roundToPages(size)
	if mem, err := secretMapping(size); err == nil {
		return &Arena{mem, schema.MemorySecret}, nil
	}
	mem, err := mapping(-1, size, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes: %w", size, err)
	}
	// Advice that an old kernel does not take costs nothing: the process is
	// undumpable anyway.
	_ = unix.Madvise(mem, unix.MADV_DONTDUMP)
	if err := unix.Mlock(mem); err != nil {
		return &Arena{mem, schema.MemoryUnlocked}, nil
	}
	return &Arena{mem, schema.MemoryLocked}, nil
}

func secretMapping(size int) ([]byte, error) {
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	// The mapping keeps the memory; a descriptor that stayed open could be
	// passed on and mapped again.
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, err
	}
	return mapping(fd, size, unix.MAP_SHARED)
}

// mapping maps by pointer, because unix.Munmap takes only whole mappings and
// Trim gives back a part of one.
func mapping(fd, size, flags int) ([]byte, error) {
	p, err := unix.MmapPtr(fd, 0, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(p), size), nil
}

func unmap(mem []byte) error {
	return unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(mem)), uintptr(len(mem)))
}

// Trim wipes and gives back the whole pages beyond the first size bytes.
func (a *Arena) Trim(size int) {
	keep := roundToPages(size)
	if keep >= len(a.mem) {
		return
	}
	rest := a.mem[keep:]
	clear(rest)
	if unmap(rest) == nil {
		a.mem = a.mem[:keep:keep]
	}
}

// Free wipes the memory and gives it back.
func (a *Arena) Free() {
	if a.mem == nil {
		return
	}
	clear(a.mem)
	// An error would say that the range is not ours; the memory is wiped anyway.
	_ = unmap(a.mem)
	a.mem = nil
}
