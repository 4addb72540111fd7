// Package secmem provides memory for secrets outside the Go heap. The memory is
// locked, excluded from core dumps, and wiped before it is freed.
//
// It protects against copies that the garbage collector leaves behind, against swap
// and core dumps, and with memfd_secret(2) also against reads through /proc/PID/mem.
// It does not protect against code in this process. It also does not protect against
// root, because root can load code into the kernel.
package secmem

import (
	"fmt"
	"os/signal"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// Probe returns the kind of memory that New returns, by allocating one page.
func Probe() (schema.Memory, error) {
	a, err := New(1)
	if err != nil {
		return "", err
	}
	defer a.Free()
	return a.Kind(), nil
}

// Harden prepares the process for secrets. Call it before the process receives one.
//
// It makes the process undumpable. The kernel then writes no core for any core
// pattern, and other processes of the same uid can use neither ptrace nor
// /proc/PID/mem. RLIMIT_CORE alone does not stop a core pattern that is a pipe
// (core(5)).
//
// It also turns off asynchronous preemption. The Go runtime preempts a goroutine with
// SIGURG. If the goroutine is copying or searching secret bytes, the kernel and the
// runtime save the vector registers, with pieces of these bytes, in memory outside the
// arenas. Do not call signal.Notify for SIGURG, or without a list of signals: that
// would turn asynchronous preemption on again.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	// This only repeats the protection, so an error from a system call filter does
	// not matter.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	// The kernel discards an ignored signal and does not interrupt the thread. Unlike
	// GODEBUG=asyncpreemptoff=1, this also works in a running process, and the
	// environment cannot override it. Child processes inherit it, but the default action
	// of SIGURG is the same.
	signal.Ignore(unix.SIGURG)
	return nil
}
