// Package secmem provides memory for secrets outside the Go heap. The memory is
// locked, excluded from core dumps, and wiped before it is freed.
//
// The package protects secrets against copies that stay in freed memory of the Go heap,
// against swapping, and against core dumps. With memfd_secret(2), it also protects secrets
// against reads through /proc/PID/mem. It does not protect against code in this process. It
// also does not protect against root, because root can load code into the kernel.
package secmem

import (
	"fmt"
	"os/signal"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// Probe allocates one page with New, and returns the kind of this memory.
func Probe() (schema.Memory, error) {
	a, err := New(1)
	if err != nil {
		return "", err
	}
	defer a.Free()
	return a.Kind(), nil
}

// Harden prepares the process for secrets. Call Harden before the process receives a secret.
//
// Harden makes the process undumpable. The kernel then writes no core dump. Other processes
// of the same uid cannot use ptrace or /proc/PID/mem. RLIMIT_CORE alone does not prevent a
// core dump if the core pattern is a pipe (core(5)).
//
// Harden also turns off asynchronous preemption. The Go runtime preempts a goroutine with
// SIGURG. If the goroutine is copying or searching secret bytes, the vector registers
// contain pieces of these bytes. The kernel and the runtime then save the registers in
// memory outside the arenas. Do not call signal.Notify for SIGURG or without a list of
// signals, because such a call turns asynchronous preemption on again.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	// The process is already undumpable, so an error of this call does not matter. A system
	// call filter can cause such an error.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	// The kernel discards an ignored signal and does not interrupt the thread. Unlike
	// GODEBUG=asyncpreemptoff=1, ignoring SIGURG also works in a running process, and the
	// environment cannot override it. Child processes also ignore SIGURG. This changes
	// nothing, because the default action of SIGURG is to ignore the signal.
	signal.Ignore(unix.SIGURG)
	return nil
}
