// Package fdstore stores the listeners and registrations of projects in the service
// manager's file descriptor store (sd_notify(3), FDSTORE=1). When the broker starts
// again, even after a crash, the service manager passes the stored file descriptors to
// the broker. If a client connects while no broker runs, its connection waits in the
// backlog of the listener.
//
// The package trusts the service manager. It does not check whether a registration is
// allowed. The broker must check this.
package fdstore

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// managerTimeout is the maximum time to wait until the service manager accepts a message, and the
// maximum time to wait until the service manager has processed a message.
const managerTimeout = 5 * time.Second

// A Store is the file descriptor store of a service. It has no Close method, because it
// uses no resource that must be released.
type Store struct {
	address string // address of the service manager's socket
}

// Open returns the file descriptor store of a service manager. address is the address of
// the service manager's socket. In the environment of a service, NOTIFY_SOCKET contains
// this address.
func Open(address string) *Store { return &Store{address} }

// SaveListener stores a project's listener. The service manager does not confirm that it
// has stored the listener, so call Verify afterwards.
func (s *Store) SaveListener(project schema.ProjectName, listener *net.UnixListener) error {
	raw, err := listener.SyscallConn()
	if err != nil {
		return err
	}
	// Store the listener's own file descriptor, not a copy from its File method. If the copy were
	// set to blocking mode, the listener would be in blocking mode, too.
	if controlErr := raw.Control(func(fd uintptr) { err = s.add(listenerName(project), int(fd)) }); controlErr != nil {
		return controlErr
	}
	return err
}

// SaveRegistration stores a project's registration under a sequence number, which no other
// registration may have. The service manager does not confirm that it has stored the
// registration, so call Verify afterwards.
func (s *Store) SaveRegistration(request schema.RegisterRequest, sequence uint64) error {
	sealed, err := seal(request)
	if err != nil {
		return err
	}
	defer sealed.Close()
	return s.add(registrationName(sequence), int(sealed.Fd()))
}

// RemoveListener removes a project's listener from the store.
func (s *Store) RemoveListener(project schema.ProjectName) error {
	return s.Remove(listenerName(project))
}

// RemoveRegistration removes the registration with this sequence number from the store.
func (s *Store) RemoveRegistration(sequence uint64) error {
	return s.Remove(registrationName(sequence))
}

// Remove asks the service manager to remove all file descriptors with this name from the store.
// The service manager does not confirm the removal.
func (s *Store) Remove(name string) error {
	return s.send("FDSTOREREMOVE=1\nFDNAME="+name, -1)
}

func (s *Store) add(name string, fd int) error {
	return s.send("FDSTORE=1\nFDNAME="+name, fd)
}

// Verify checks whether all listeners and registrations that were saved before are in the
// store. It returns an error if the service manager does not store all of them, or does not
// respond within managerTimeout.
//
// If systemd refuses to store a file descriptor, systemd closes the file descriptor and sends no
// answer. Therefore Verify also stores the writing end of a pipe. If systemd does not close
// the pipe, the store had enough room for the pipe and for everything that was saved before.
// If the pipe is in the store, Verify then removes it.
func (s *Store) Verify() error {
	stored, err := s.sendPipe("FDSTORE=1\nFDNAME=" + probeName)
	if err != nil {
		return err
	}
	defer unix.Close(stored)
	// The service manager processes messages in order. When the service manager processes
	// BARRIER=1, it closes the pipe of this message.
	barrier, err := s.sendPipe("BARRIER=1")
	if err != nil {
		return err
	}
	defer unix.Close(barrier)
	if !closesWithin(barrier, managerTimeout) {
		return fmt.Errorf("the service manager did not respond within %v", managerTimeout)
	}
	if closesWithin(stored, 0) {
		return errors.New("the service manager does not store all file descriptors: FileDescriptorStoreMax= is 0 or too small")
	}
	return s.Remove(probeName)
}

// sendPipe sends a message with the writing end of a new pipe, and returns the reading
// end. It closes its own copy of the writing end. The pipe is then closed as soon as the
// service manager closes its copy.
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

// send sends one message. If fd is not negative, the message includes the file descriptor
// fd. send uses system calls, because package net cannot send a file descriptor from an
// unbound socket.
func (s *Store) send(message string, fd int) error {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("creating a socket: %w", err)
	}
	defer unix.Close(socket)
	timeout := unix.NsecToTimeval(managerTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		return fmt.Errorf("setting the timeout of a socket: %w", err)
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

// closesWithin reports whether the last writing end of a pipe is already closed, or is
// closed within the timeout. reader is the reading end of the pipe.
func closesWithin(reader int, timeout time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(reader)}} // poll(2) reports POLLHUP even if Events is 0
	deadline := time.Now().Add(timeout)
	for {
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline)).Milliseconds()))
		if err != unix.EINTR {
			return err == nil && n == 1
		}
	}
}
