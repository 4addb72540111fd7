// Package secmem provides memory for secrets outside the Go heap. The package excludes this
// memory from core dumps, and wipes the memory when it is freed. It also locks the memory, unless
// this would exceed the limit of locked memory (RLIMIT_MEMLOCK). In a build with the race
// detector, the memory is on the Go heap.
//
// The package protects secrets against copies that stay in freed memory of the Go heap,
// against swapping, and against core dumps. With memfd_secret(2), it also protects secrets
// against reads through /proc/PID/mem. It does not protect against code in this process. It
// also does not protect against root, because root can load code into the kernel.
package secmem

import (
	"fmt"
	"os/signal"
	"unsafe"

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

// MakeUndumpable makes the process undumpable. The kernel then writes no core dump. Other
// processes of the same uid cannot use ptrace or /proc/PID/mem, unless they have the
// capability CAP_SYS_PTRACE. RLIMIT_CORE alone does not prevent a core dump if the core
// pattern is a pipe (core(5)).
func MakeUndumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	// The process is already undumpable, so an error of this call does not matter. A system
	// call filter can cause such an error.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	return nil
}

// Harden prepares a process that keeps secrets in arenas. Call Harden before the process
// receives a secret.
//
// Harden makes the process undumpable. It also makes the process ignore most signals, because a
// signal with a handler could copy secrets out of the arenas. If such a signal interrupts a thread
// that is copying or searching secret bytes, the vector registers can contain pieces of these
// bytes, and the kernel saves the registers on the signal stack. The Go runtime itself sends
// SIGURG to preempt a goroutine, so Harden also turns off asynchronous preemption.
//
// Harden does not ignore signals whose handlers end the process. It also does not ignore SIGHUP,
// SIGINT, SIGQUIT, and SIGTERM, which the process needs, and SIGPROF and the internal signal 33,
// which the Go runtime does not give up. Root and processes of the same uid can still interrupt
// threads with these six signals. To prevent this, the process would have to execute itself again
// with blocked signals. Even then, root could use ptrace.
//
// After Harden, do not call signal.Notify without a list of signals or for a signal that Harden
// ignores, because this call would install a handler again. A child process also ignores the
// signals that Harden ignores, unless the child process installs its own handlers, as a Go
// program does.
func Harden() error {
	if err := MakeUndumpable(); err != nil {
		return err
	}
	// The kernel discards an ignored signal and does not interrupt the thread. Unlike
	// GODEBUG=asyncpreemptoff=1, ignoring SIGURG also works in a running process, and the
	// environment cannot override it.
	signal.Ignore(unix.SIGURG, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM, unix.SIGXCPU,
		unix.SIGXFSZ, unix.SIGVTALRM, unix.SIGWINCH, unix.SIGIO, unix.SIGPWR)
	for realTime := unix.Signal(35); realTime <= 64; realTime++ {
		signal.Ignore(realTime)
	}
	return resetChildSignal()
}

// resetChildSignal restores the default action of SIGCHLD, which discards the signal. If the
// process ignored SIGCHLD, the kernel would not keep the exit status of a child process
// (wait(2)). Package os/signal cannot restore a default action, so resetChildSignal calls
// rt_sigaction(2).
func resetChildSignal() error {
	var defaultAction [4]uint64 // the kernel's struct sigaction; SIG_DFL is 0
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(&defaultAction)), 0, 8, 0, 0)
	if errno != 0 {
		return fmt.Errorf("restoring the default action of SIGCHLD: %w", errno)
	}
	return nil
}
