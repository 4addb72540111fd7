package testenv

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// AsUser calls f on a thread whose effective uid is uid, so the kernel checks the permissions of this
// user. f must not start a goroutine that needs these permissions. If this process does not run as root,
// the test fails.
func AsUser(t testing.TB, uid int, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Unlike syscall.Setresuid, these system calls change the uid of this thread only.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
		t.Fatal(errno)
	}
	defer func() {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0)); errno != 0 {
			panic(errno) // do not run other tests on a thread with the wrong uid
		}
	}()
	f()
}
