// Package fdstore keeps listeners and registrations in the service manager's
// descriptor store (sd_notify(3), FDSTORE=1). The service manager passes them to
// the next start of the broker, also after a crash. A client that connects to a
// listener in the meantime waits in its backlog.
//
// The package trusts the service manager. It does not judge registrations: that
// is the caller's task.
package fdstore

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// managerTimeout is how long the service manager may take to respond.
const managerTimeout = 5 * time.Second

// A Store is the descriptor store of a service. It holds no resources.
type Store struct {
	address string // of the service manager's socket
}

// Open returns the store of the service manager at a socket address, which is NOTIFY_SOCKET in
// the environment of a service.
func Open(address string) *Store { return &Store{address} }

// SaveListener stores a project's listener. The service manager does not confirm
// this: call Verify.
func (s *Store) SaveListener(project schema.ProjectName, listener *net.UnixListener) error {
	raw, err := listener.SyscallConn()
	if err != nil {
		return err
	}
	// The descriptor of the listener itself: the copy that File returns would have
	// other flags.
	if controlErr := raw.Control(func(fd uintptr) { err = s.add(listenerName(project), int(fd)) }); controlErr != nil {
		return controlErr
	}
	return err
}

// SaveRegistration stores a project's registration under a sequence number. The
// service manager does not confirm this: call Verify.
func (s *Store) SaveRegistration(request schema.RegisterRequest, sequence uint64) error {
	sealed, err := seal(request)
	if err != nil {
		return err
	}
	defer sealed.Close()
	return s.add(registrationName(request.Name, sequence), int(sealed.Fd()))
}

// RemoveListener removes a project's listener.
func (s *Store) RemoveListener(project schema.ProjectName) error {
	return s.Remove(listenerName(project))
}

// RemoveRegistration removes the registration with this sequence number.
func (s *Store) RemoveRegistration(project schema.ProjectName, sequence uint64) error {
	return s.Remove(registrationName(project, sequence))
}

// Remove removes the descriptors with this name.
func (s *Store) Remove(name string) error {
	return s.send("FDSTOREREMOVE=1\nFDNAME="+name, -1)
}

func (s *Store) add(name string, fd int) error {
	return s.send("FDSTORE=1\nFDNAME="+name, fd)
}

// Verify returns nil if everything that was saved before is in the store.
//
// systemd closes a descriptor that it refuses, and sends no answer. So Verify
// stores the writing end of a pipe as well: if the pipe stays open, there was
// still room after everything else.
func (s *Store) Verify() error {
	stored, err := s.sendPipe("FDSTORE=1\nFDNAME=" + probeName)
	if err != nil {
		return err
	}
	defer unix.Close(stored)
	// The service manager closes the barrier's pipe when it has processed all
	// messages before it.
	barrier, err := s.sendPipe("BARRIER=1")
	if err != nil {
		return err
	}
	defer unix.Close(barrier)
	if !closesWithin(barrier, managerTimeout) {
		return fmt.Errorf("the service manager did not respond within %v", managerTimeout)
	}
	if closesWithin(stored, 0) {
		return errors.New("the service manager does not store descriptors: FileDescriptorStoreMax= is 0 or too small")
	}
	return s.Remove(probeName)
}

// sendPipe sends a message with the writing end of a pipe, and returns the
// reading end. No other copy of the writing end stays open.
func (s *Store) sendPipe(message string) (reader int, err error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, err
	}
	err = s.send(message, pipe[1])
	unix.Close(pipe[1])
	if err != nil {
		unix.Close(pipe[0])
		return -1, err
	}
	return pipe[0], nil
}

// send sends one message, and a descriptor if fd is not negative. It uses system
// calls because package net sends no descriptor from an unbound socket.
func (s *Store) send(message string, fd int) error {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("creating a socket: %w", err)
	}
	defer unix.Close(socket)
	timeout := unix.NsecToTimeval(managerTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		return fmt.Errorf("preparing a socket: %w", err)
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	for {
		err := unix.Sendmsg(socket, []byte(message), rights, &unix.SockaddrUnix{Name: s.address}, unix.MSG_NOSIGNAL)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("sending a message to the service manager: %w", err)
		}
	}
}

// closesWithin reports whether the last writer of a pipe is closed, or closes
// within the timeout.
func closesWithin(reader int, timeout time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(reader)}} // POLLHUP is always reported
	deadline := time.Now().Add(timeout)
	for {
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline)).Milliseconds()))
		if err != unix.EINTR {
			return err == nil && n == 1
		}
	}
}
