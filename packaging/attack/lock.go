package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// lockInKernel locks a directory until standard input is closed. When a process lists a directory,
// the kernel copies the entries to the memory of the process, and locks the directory during the
// copy. lockInKernel lists the directory into memory whose pages never arrive, so the copy does not
// end. If another process creates or removes a file in the directory, it waits for the lock. No
// signal, not even SIGKILL, ends this wait.
func lockInKernel(dir string, _ int) (attempts, succeeded int) {
	file, err := os.CreateTemp("", "kh")
	if err != nil {
		return 0, 0
	}
	defer os.Remove(file.Name())
	file.Close()
	m, err := mountFUSE(file.Name(), unix.S_IFREG|0o644)
	if err != nil {
		return 0, 0
	}
	defer m.unmount() // also releases the lock
	go m.serve()      // unmount ends this goroutine
	// os.Open would add the file to the poller of the Go runtime, and this operation would hang.
	mapped, err := openRetry(file.Name(), unix.O_RDONLY)
	if err != nil {
		return 0, 0
	}
	unix.Fstat(mapped, &unix.Stat_t{}) // the kernel must know the size of the file before a page is read
	memory, err := unix.Mmap(mapped, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return 0, 0
	}
	locked, err := openRetry(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return 0, 0
	}
	go unix.Getdents(locked, memory) // unmount ends this goroutine
	<-m.reading
	fmt.Fprintln(os.Stdout, 1, 1)
	io.Copy(io.Discard, os.Stdin)
	return 1, 1
}

// openRetry opens a file. It tries again if a signal interrupts the system call, because the
// Go runtime sends signals to its threads.
func openRetry(path string, flags int) (fd int, err error) {
	for err = unix.EINTR; err == unix.EINTR; {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0)
	}
	return fd, err
}

// startLocking starts an attacker that runs lockInKernel. startLocking returns when the
// directory is locked.
func (b *broker) startLocking(dir string) (release func(), err error) {
	cmd, err := b.attacker(0, "lock", dir, "0")
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	line, _ := lines.ReadString('\n')
	release = func() {
		in.Close()
		io.Copy(io.Discard, lines)
		cmd.Wait()
	}
	if line != "1 1\n" {
		release()
		return nil, fmt.Errorf("the attacker cannot lock %s", dir)
	}
	return release, nil
}

// lockDirectoryOf returns an attack that locks the directory of a project in the kernel, and
// restarts the broker while the directory is locked. If the project is not registered yet, the
// attack first creates its directory. A container engine also creates this directory if a
// container starts before its project is registered.
func lockDirectoryOf(project string) func(*setup) (int, string, error) {
	return func(s *setup) (int, string, error) {
		if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
			return 0, "skipped: needs root and /dev/fuse", nil
		}
		b, err := startBroker(s)
		if err != nil {
			return 0, "", err
		}
		defer b.remove()
		os.Mkdir(filepath.Dir(b.socket(project)), 0o755) // if the project is registered, the directory exists
		dir, err := filepath.EvalSymlinks(filepath.Dir(b.socket(project)))
		if err != nil {
			return 0, "", err
		}
		release, err := b.startLocking(dir)
		if err != nil {
			return 0, "skipped: " + err.Error(), nil
		}
		release = sync.OnceFunc(release)
		defer release()
		if err := b.serveOthers(project, "web", "other"); err != nil {
			return 1, "", fmt.Errorf("while the directory is locked: %w", err)
		}
		// A broker that waits for the lock in the kernel cannot be killed. So if the broker does
		// not stop, unlock the directory after 20 seconds.
		guard := time.AfterFunc(20*time.Second, release)
		took := b.stop()
		if !guard.Stop() {
			return 1, "", errors.New("the broker could not end until the directory was unlocked")
		}
		if took > 1500*time.Millisecond && !s.small {
			return 1, "", fmt.Errorf("the broker took %v to stop", took)
		}
		admin, err := b.launch()
		if err != nil {
			return 1, "", err
		}
		defer admin.Close()
		if err := b.serveOthers(project, "web", "other", "new"); err != nil {
			return 1, "", fmt.Errorf("after a restart: %w", err)
		}
		release()
		if err := waitFor(10*time.Second, func() error {
			if err := b.register(admin, project); err != nil {
				return err
			}
			return b.get(project)
		}); err != nil {
			return 1, "", fmt.Errorf("after the directory was unlocked: %w", err)
		}
		return 1, fmt.Sprintf("other projects are served, the broker took %v to stop", took.Round(time.Millisecond)), nil
	}
}

// serveOthers unregisters the project whose directory is locked, and tries to register it
// again. It then sends status requests for three seconds, and registers other projects. It
// returns an error if the broker does not serve these projects, or if a request takes too
// long.
func (b *broker) serveOthers(locked string, others ...string) error {
	admin, err := client.DialAdmin(context.Background(), b.runtimeDir()+"/admin/admin.sock")
	if err != nil {
		return err
	}
	defer admin.Close()
	admin.Unregister(context.Background(), schema.ProjectName(locked)) // returns an error if the project is not registered
	b.register(admin, locked)                                          // returns an error if the broker waits for the lock
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		began := time.Now()
		if _, err := b.connections(); err != nil { // sends a status request
			return err
		}
		if took := time.Since(began); took > 500*time.Millisecond && !b.setup.small {
			return fmt.Errorf("a status request took %v", took)
		}
	}
	for _, name := range others {
		if err := b.register(admin, name); err != nil {
			return fmt.Errorf("registering project %s: %w", name, err)
		}
		if err := b.get(name); err != nil {
			return fmt.Errorf("project %s: %w", name, err)
		}
	}
	return nil
}
