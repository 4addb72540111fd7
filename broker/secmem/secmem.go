// Package secmem holds secrets outside the Go heap, in memory that is locked,
// kept out of core dumps and wiped when it is given back.
//
// It guards against copies the garbage collector leaves behind, against swap
// and core dumps, and with memfd_secret(2) against reads through /proc/PID/mem.
// It does not guard against root, who can load code into the kernel, nor
// against code that runs in this process.
package secmem

import (
	"fmt"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// Probe says which kind of memory New gives out, by asking for a page of it.
func Probe() (schema.Memory, error) {
	a, err := New(1)
	if err != nil {
		return "", err
	}
	defer a.Free()
	return a.Kind(), nil
}

// Harden makes the process undumpable: no core, whatever the core pattern, and
// no ptrace or /proc/PID/mem for others of the same uid. RLIMIT_CORE alone does
// not stop a core pattern that is a pipe (core(5)).
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	// A second lock on the same door, which a system call filter may forbid.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	return nil
}
