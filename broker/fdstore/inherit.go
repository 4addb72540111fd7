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

// Inherited contains the file descriptors that the service manager passed to the broker
// when the broker started. These are the admin listener and the content of the file
// descriptor store.
type Inherited struct {
	Admin         *net.UnixListener // nil if the service manager passed no file descriptors
	Listeners     map[schema.ProjectName]*net.UnixListener
	Registrations map[schema.ProjectName]Registration
	Unusable      []string // names of file descriptors that the broker cannot use and should remove from the store
}

// A Registration is a stored registration of a project, with the sequence number under
// which it is stored.
type Registration struct {
	Request  schema.RegisterRequest
	Sequence uint64
}

// Inherit converts inherited files to listeners and registrations. The name of each file
// determines the purpose of the file (sd_listen_fds_with_names(3)). Inherit returns an error for
// a file with an unknown name: if the file were a socket, its clients would hang instead of
// failing, because the broker would accept no connections on it. Inherit also returns an error if
// there are files, but not exactly one usable admin listener.
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
		return nil, fmt.Errorf("the service manager passed no file descriptor named %s: set FileDescriptorName=%s in the socket unit", adminName, adminName)
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
		return fmt.Errorf("the service manager passed two file descriptors named %s: the socket unit must have exactly one ListenStream=", adminName)
	case name == adminName:
		l, err := newListener(file)
		if err != nil {
			return fmt.Errorf("using the file descriptor %s: %w", name, err)
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
		sequence, ok := parseRegistrationName(name)
		if !ok {
			return errUnexpectedName(name)
		}
		in.addRegistration(file, sequence)
	case name == probeName: // the previous broker process ended during Verify
		in.Unusable = append(in.Unusable, name)
	default:
		return errUnexpectedName(name)
	}
	return nil
}

// addRegistration adds the registration that file contains. If a project has several
// registrations, only the registration with the highest sequence number is used. addRegistration
// adds the names of the older registrations and of invalid files to Unusable.
func (in *Inherited) addRegistration(file *os.File, sequence uint64) {
	request, err := unseal(file)
	other, duplicate := in.Registrations[request.Name]
	switch {
	case err != nil || !schema.ValidProjectName(request.Name) || (duplicate && other.Sequence > sequence):
		in.Unusable = append(in.Unusable, registrationName(sequence))
		return
	case duplicate:
		in.Unusable = append(in.Unusable, registrationName(other.Sequence))
	}
	in.Registrations[request.Name] = Registration{request, sequence}
}

func errUnexpectedName(name string) error {
	return fmt.Errorf("the service manager passed a file descriptor with the unknown name %q: known names are %s, %sNAME, and %sN", name, adminName, listenerPrefix, registrationPrefix)
}

// newListener returns a listener for a file. It returns an error if the file is not a listening
// Unix stream socket.
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
