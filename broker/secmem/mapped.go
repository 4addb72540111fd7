//go:build !race

package secmem

import (
	"fmt"
	"unsafe"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// New returns an arena of at least size bytes. It uses memfd_secret(2) if possible, and otherwise
// locked memory. RLIMIT_MEMLOCK limits secret memory and locked memory together. If this limit is
// reached, the arena is not locked, and its Kind is schema.MemoryUnlocked. New fails only if
// there is not enough address space or memory.
func New(size int) (*Arena, error) {
	size = roundToPages(size)
	if mem, err := secretMapping(size); err == nil {
		return &Arena{mem, schema.MemorySecret}, nil
	}
	mem, err := mapping(-1, size, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes: %w", size, err)
	}
	// An old kernel may refuse this call. The error is harmless, because the kernel writes no
	// core dump of an undumpable process (see MakeUndumpable).
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
	// The memory exists until it is unmapped, so the file descriptor is not needed any more.
	// Close the file descriptor, because another process that received it could map the memory.
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, err
	}
	return mapping(fd, size, unix.MAP_SHARED)
}

// mapping maps size bytes of memory. It uses unix.MmapPtr, because unix.Munmap accepts only
// whole mappings, but TrimTo unmaps a part of a mapping.
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

// TrimTo reduces the arena to the pages that contain its first size bytes. It wipes and unmaps
// all other pages. If the kernel cannot unmap these pages, the arena keeps them.
func (a *Arena) TrimTo(size int) {
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

// Free wipes and unmaps the memory.
func (a *Arena) Free() {
	if a.mem == nil {
		return
	}
	clear(a.mem)
	// Ignore an error of unmap, because the memory is already wiped.
	_ = unmap(a.mem)
	a.mem = nil
}
