package testenv

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ForbidMemfdSecret makes memfd_secret(2) fail with EPERM, as the system call filter of a
// service manager can do. The filter applies to this process and its child processes.
func ForbidMemfdSecret() error {
	// TSYNC applies the filter to all threads. This is necessary because Go may call exec on
	// another thread.
	return failSystemCall(unix.SYS_MEMFD_SECRET, unix.EPERM, unix.SECCOMP_FILTER_FLAG_TSYNC)
}

// ForbidMemfd makes memfd_create(2) fail with EPERM in this process and its child processes.
func ForbidMemfd() error {
	return failSystemCall(unix.SYS_MEMFD_CREATE, unix.EPERM, unix.SECCOMP_FILTER_FLAG_TSYNC)
}

// WithFailingSystemCall runs a function in which a system call fails with errno. The system
// call does not fail in other goroutines. If the filter cannot be installed,
// WithFailingSystemCall returns an error and does not call the function.
func WithFailingSystemCall(number uint32, errno syscall.Errno, run func()) error {
	done := make(chan error)
	go func() {
		// The filter cannot be removed from a thread. This goroutine does not unlock its
		// thread, so the thread ends together with the goroutine, and the filter affects no
		// other goroutine.
		runtime.LockOSThread()
		err := failSystemCall(number, errno, 0)
		if err == nil {
			run()
		}
		done <- err
	}()
	return <-done
}

// failSystemCall makes a system call fail with errno. flags are the flags of seccomp(2).
func failSystemCall(number uint32, errno syscall.Errno, flags uintptr) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // load the number of the system call (seccomp_data.nr)
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: number},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, code := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	if code != 0 {
		return code
	}
	return nil
}
