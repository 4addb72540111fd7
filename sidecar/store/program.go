package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ownProgram is the program of this process. Unlike the path of the program, it still refers to the
// same version after an upgrade has replaced the program.
const ownProgram = "/proc/self/exe"

// programSeals prevent all changes of the content.
const programSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// copyProgram copies the program of the sidecar to a memfd, and removes the permission to read the
// memfd, but not to execute it. If a child process executes the copy, the kernel makes the child
// process undumpable before its first instruction (would_dump in fs/exec.c). A child process that
// executes the program itself is dumpable until it calls secmem.MakeUndumpable. Until then, other
// processes of the same uid can open the pipe that contains the secrets.
//
// No other process of the uid can change the mode of the copy, because the sidecar and its child
// processes are undumpable.
func copyProgram() (program *os.File, err error) {
	source, err := os.Open(ownProgram)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	const name = "keyhatch-program"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // Linux before 6.3 does not know MFD_EXEC
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("creating a memfd: %w", err)
	}
	program = os.NewFile(uintptr(fd), name)
	_, err = io.Copy(program, source)
	if err == nil {
		_, err = unix.FcntlInt(program.Fd(), unix.F_ADD_SEALS, programSeals)
	}
	if err == nil {
		err = program.Chmod(0o111)
	}
	if err != nil {
		program.Close()
		return nil, fmt.Errorf("copying the program to a memfd: %w", err)
	}
	return program, nil
}

// isUnreadable reports whether copyProgram failed because this process has no permission to read the
// program. A copy is then not necessary: if a process executes an unreadable program, the kernel makes
// the process undumpable too.
func isUnreadable(err error) bool {
	failure, ok := errors.AsType[*fs.PathError](err)
	return ok && failure.Path == ownProgram && errors.Is(err, fs.ErrPermission)
}
