package fdstore

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// Inherited are the descriptors that the service manager passed to this start of the
// broker: the admin listener, and the content of the descriptor store.
type Inherited struct {
	Admin         *net.UnixListener // nil if the broker was started by hand
	Listeners     map[schema.ProjectName]*net.UnixListener
	Registrations map[schema.ProjectName]Registration
	Unusable      []string // names of stored descriptors that can be removed
}

// A Registration is a stored registration, and the sequence number under which it
// is stored.
type Registration struct {
	Request  schema.RegisterRequest
	Sequence uint64
}

// Inherit takes over descriptors. The name of each file decides what it is for
// (sd_listen_fds_with_names(3)). An unknown name is an error, because the broker would
// not accept connections on such a socket, and clients would hang instead of failing.
func Inherit(files []*os.File) (*Inherited, error) {
	in := &Inherited{
		Listeners:     map[schema.ProjectName]*net.UnixListener{},
		Registrations: map[schema.ProjectName]Registration{},
	}
	for _, file := range files {
		if err := in.add(file); err != nil {
			in.Close()
			return nil, err
		}
		file.Close()
	}
	if len(files) > 0 && in.Admin == nil {
		in.Close()
		return nil, fmt.Errorf("the service manager passed no descriptor named %s: set FileDescriptorName=%s in the socket unit", adminName, adminName)
	}
	return in, nil
}

// Close closes all listeners.
func (in *Inherited) Close() {
	if in.Admin != nil {
		in.Admin.Close()
	}
	for _, l := range in.Listeners {
		l.Close()
	}
}

func (in *Inherited) add(file *os.File) error {
	name := file.Name()
	project, isListener := strings.CutPrefix(name, listenerPrefix)
	switch {
	case name == adminName && in.Admin != nil:
		return fmt.Errorf("the service manager passed two descriptors named %s: the socket unit must have exactly one ListenStream=", adminName)
	case name == adminName:
		l, err := newListener(file)
		if err != nil {
			return fmt.Errorf("the descriptor %s: %w", name, err)
		}
		in.Admin = l
	case isListener && schema.ValidProjectName(project):
		l, err := newListener(file)
		if err != nil || in.Listeners[schema.ProjectName(project)] != nil {
			in.Unusable = append(in.Unusable, name)
			break
		}
		in.Listeners[schema.ProjectName(project)] = l
	case strings.HasPrefix(name, registrationPrefix):
		project, sequence, ok := parseRegistrationName(name)
		if !ok {
			return errUnexpectedName(name)
		}
		in.addRegistration(file, project, sequence)
	case name == probeName: // Verify was interrupted by the end of the process
		in.Unusable = append(in.Unusable, name)
	default:
		return errUnexpectedName(name)
	}
	return nil
}

// addRegistration keeps the newest registration of each project.
func (in *Inherited) addRegistration(file *os.File, project schema.ProjectName, sequence uint64) {
	request, err := unseal(file)
	other, duplicate := in.Registrations[project]
	switch {
	case err != nil || request.Name != project || (duplicate && other.Sequence > sequence):
		in.Unusable = append(in.Unusable, registrationName(project, sequence))
		return
	case duplicate:
		in.Unusable = append(in.Unusable, registrationName(project, other.Sequence))
	}
	in.Registrations[project] = Registration{request, sequence}
}

func errUnexpectedName(name string) error {
	return fmt.Errorf("the service manager passed a descriptor with an unknown name, %q: known names are %s, %sNAME, and %sNAME@N", name, adminName, listenerPrefix, registrationPrefix)
}

// newListener returns a listener for a descriptor, which must be a listening Unix
// stream socket.
func newListener(file *os.File) (*net.UnixListener, error) {
	fd := int(file.Fd())
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || listening == 0 {
		return nil, errors.New("not a listening socket")
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok || u.Addr().Network() != "unix" {
		l.Close()
		return nil, errors.New("not a Unix stream socket")
	}
	return u, nil
}
