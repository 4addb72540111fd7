package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"golang.org/x/sys/unix"
)

// TestMain runs the tests. If KEYHATCH_TEST_AS contains the name of a child process, TestMain runs
// this child process instead.
func TestMain(m *testing.M) {
	switch os.Getenv("KEYHATCH_TEST_AS") {
	case "stopped":
		unix.Kill(os.Getpid(), unix.SIGSTOP)
		unix.Pause() // another thread can handle the signal, and this thread then runs until it does
	case "failed":
		store.WriteResult(context.Background(), &fixedStore{set: store.Set{}}, os.Stdin, os.Stdout)
		os.Exit(1)
	case "empty":
		store.WriteResult(context.Background(), &fixedStore{set: store.Set{}}, os.Stdin, os.Stdout)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// readAs reads a store in a child process, which runs the named part of TestMain.
func readAs(t *testing.T, ctx context.Context, name string, timeout time.Duration) (store.LockedReading, error) {
	t.Setenv("KEYHATCH_TEST_AS", name)
	reader := store.ChildReader{Args: []string{"-test.run=^$"}, Timeout: timeout}
	return reader.Read(ctx, store.LockedReading{})
}

// TestIncompleteResultOfChildIsAnError runs a child process that exits with 0 but does not write a
// complete result.
func TestIncompleteResultOfChildIsAnError(t *testing.T) {
	_, err := readAs(t, context.Background(), "", time.Minute)
	want := "the process that reads the store has failed: the result of a read of the store is incomplete"
	if err == nil || err.Error() != want {
		t.Errorf("got the error %v; want %s", err, want)
	}
}

// TestResultOfFailedChildIsNotUsed runs a child process that writes a complete result and exits with 1.
func TestResultOfFailedChildIsNotUsed(t *testing.T) {
	reading, err := readAs(t, context.Background(), "failed", time.Minute)
	if want := "the process that reads the store has failed: exit status 1"; err == nil || err.Error() != want || reading.Set != nil {
		t.Errorf("got the set %v and the error %v; want %s", reading.Set, err, want)
	}
}

// TestStoppedChildIsAnError runs a child process that stops itself. After the timeout, Read must
// return an error that names the cause. If the context ends, Read must return the error of the context.
func TestStoppedChildIsAnError(t *testing.T) {
	_, err := readAs(t, context.Background(), "stopped", 100*time.Millisecond)
	if want := "the process that reads the store did not end within 100ms: a signal may have stopped the process"; err == nil || err.Error() != want {
		t.Errorf("got the error %v; want %s", err, want)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := readAs(t, ctx, "stopped", time.Hour); err != ctx.Err() {
		t.Errorf("got the error %v; want that of the context", err)
	}
}

// TestBlockedStartOfChildIsAnError blocks the system call execve of the new process with a lease on the
// program. A signal that stops the new process has the same effect. Read must return an error after
// the timeout, and must work again when the system call returns.
func TestBlockedStartOfChildIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o700); err != nil {
		t.Fatal(err)
	}
	program, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	_, err = unix.FcntlInt(program.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	testenv.Require(t, err == nil, fmt.Sprintf("the file system has no leases: %v", err))
	t.Setenv("KEYHATCH_TEST_AS", "empty")
	reader := store.ChildReader{Args: []string{"-test.run=^$"}, Timeout: 100 * time.Millisecond}
	reader.SetProgram(path)
	for range 2 {
		if _, err := reader.Read(context.Background(), store.LockedReading{}); err == nil || !strings.Contains(err.Error(), "did not end within") {
			t.Errorf("got the error %v", err)
		}
	}
	// The blocked process also has the file open, so closing the file here would not end the lease.
	if _, err := unix.FcntlInt(program.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		t.Fatal(err)
	}
	program.Close()
	reader.Timeout = time.Minute
	reading, err := reader.Read(context.Background(), store.LockedReading{})
	if err != nil {
		t.Fatal(err)
	}
	reading.Set.Free()
}

// TestTemporaryErrorCausesNoFallback limits the size of files, so that the program cannot be copied. Read
// must return an error. It must not execute the readable program instead, because another process of the
// same uid can set this limit. Without the limit, Read must work.
func TestTemporaryErrorCausesNoFallback(t *testing.T) {
	t.Setenv("KEYHATCH_TEST_AS", "empty")
	warn := func(err error) { t.Errorf("Warn was called with %v", err) }
	reader := store.ChildReader{Args: []string{"-test.run=^$"}, Timeout: time.Minute, Warn: warn}
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := reader.Read(t.Context(), store.LockedReading{})
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.EFBIG) {
		t.Errorf("with the limit: Read returned the error %v", err)
	}
	reading, err := reader.Read(t.Context(), store.LockedReading{})
	if err != nil {
		t.Fatal(err)
	}
	reading.Set.Free()
}
