package broker

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// A descriptorStore is the service manager's (sd_notify(3), FDSTORE=1): what is
// put there is passed to the daemon's next start, after a crash too, and what is
// connected to a listener meanwhile waits in its backlog.
type descriptorStore struct {
	address string // of the notify socket; "" where there is no service manager
}

// managerTimeout is how long the service manager may take to answer.
const managerTimeout = 5 * time.Second

// Names in the store. A registration that changes is put under its next number
// before the last one is removed, so that at every moment there is one.
const (
	adminDescriptor    = "admin"
	listenerPrefix     = "project-"
	registrationPrefix = "registration-"
	probeDescriptor    = "probe"
)

func listenerName(project schema.ProjectName) string { return listenerPrefix + string(project) }

func registrationName(project schema.ProjectName, sequence uint64) string {
	return registrationPrefix + string(project) + "@" + strconv.FormatUint(sequence, 10)
}

// parseRegistrationName is registrationName's inverse.
func parseRegistrationName(name string) (project schema.ProjectName, sequence uint64, ok bool) {
	rest, ok := strings.CutPrefix(name, registrationPrefix)
	text, number, found := strings.Cut(rest, "@")
	sequence, err := strconv.ParseUint(number, 10, 64)
	return schema.ProjectName(text), sequence, ok && found && err == nil && schema.ValidProjectName(text)
}

func (d descriptorStore) put(name string, fd int) error {
	return d.send("FDSTORE=1\nFDNAME="+name, fd)
}

func (d descriptorStore) remove(name string) error {
	return d.send("FDSTOREREMOVE=1\nFDNAME="+name, -1)
}

// send is one message, with a descriptor where fd is one. Package net sends none
// to an address without having a socket of its own bound somewhere.
func (d descriptorStore) send(message string, fd int) error {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("making a socket: %w", err)
	}
	defer unix.Close(socket)
	patience := unix.NsecToTimeval(managerTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience); err != nil {
		return fmt.Errorf("preparing a socket: %w", err)
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	for {
		err := unix.Sendmsg(socket, []byte(message), rights, &unix.SockaddrUnix{Name: d.address}, unix.MSG_NOSIGNAL)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("telling the service manager: %w", err)
		}
	}
}

// took reports, as a nil error, that all that was put before is in the store.
// systemd says nothing to what it refuses, it only closes it. So a pipe is put
// there too: that it stays open says that there was still room behind the rest.
func (d descriptorStore) took() error {
	open, err := d.piped("FDSTORE=1\nFDNAME=" + probeDescriptor)
	if err != nil {
		return err
	}
	defer unix.Close(open)
	// The barrier's pipe is closed when all before it has been dealt with.
	barrier, err := d.piped("BARRIER=1")
	if err != nil {
		return err
	}
	defer unix.Close(barrier)
	if !closedWithin(barrier, managerTimeout) {
		return fmt.Errorf("the service manager did not answer within %v", managerTimeout)
	}
	if closedWithin(open, 0) {
		return errors.New("the service manager does not keep descriptors: FileDescriptorStoreMax= is too small, or 0")
	}
	return d.remove(probeDescriptor)
}

// piped sends a message with the writing end of a pipe, keeps no other copy of
// it, and returns the reading end.
func (d descriptorStore) piped(message string) (read int, err error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, err
	}
	err = d.send(message, pipe[1])
	unix.Close(pipe[1])
	if err != nil {
		unix.Close(pipe[0])
		return -1, err
	}
	return pipe[0], nil
}

// closedWithin reports whether a pipe has no writer any more, or loses the last
// one in time.
func closedWithin(read int, timeout time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(read)}} // POLLHUP is always reported
	until := time.Now().Add(timeout)
	for {
		n, err := unix.Poll(fds, int(max(0, time.Until(until)).Milliseconds()))
		if err != unix.EINTR {
			return err == nil && n == 1
		}
	}
}
