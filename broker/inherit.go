package broker

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// An inheritance is what the service manager passed to this start of the
// daemon: the admin listener, and what an earlier one put into its descriptor
// store.
type inheritance struct {
	admin         *net.UnixListener // nil: started by hand
	listeners     map[schema.ProjectName]*net.UnixListener
	registrations map[schema.ProjectName]inheritedRegistration
	useless       []string // names in the store that nothing is made of
}

type inheritedRegistration struct {
	registration
	sequence uint64
}

// inherit sorts descriptors by their names and takes them over. A name that is
// not known is an error, because a socket that nobody serves would look alive.
func inherit(files []*os.File) (*inheritance, error) {
	in := &inheritance{
		listeners:     map[schema.ProjectName]*net.UnixListener{},
		registrations: map[schema.ProjectName]inheritedRegistration{},
	}
	for _, file := range files {
		if err := in.take(file); err != nil {
			in.close()
			return nil, err
		}
		file.Close()
	}
	if len(files) > 0 && in.admin == nil {
		in.close()
		return nil, fmt.Errorf("the service manager passed descriptors, and none is named %s: say FileDescriptorName=%s in the socket unit", adminDescriptor, adminDescriptor)
	}
	return in, nil
}

func (in *inheritance) take(file *os.File) error {
	name := file.Name()
	project, isListener := strings.CutPrefix(name, listenerPrefix)
	switch {
	case name == adminDescriptor && in.admin != nil:
		return fmt.Errorf("the service manager passed two descriptors named %s: one ListenStream= is all there is", adminDescriptor)
	case name == adminDescriptor:
		l, err := listenerOf(file)
		if err != nil {
			return fmt.Errorf("the descriptor %s: %w", name, err)
		}
		in.admin = l
	case isListener && schema.ValidProjectName(project):
		l, err := listenerOf(file)
		if err != nil || in.listeners[schema.ProjectName(project)] != nil {
			in.useless = append(in.useless, name)
			break
		}
		in.listeners[schema.ProjectName(project)] = l
	case strings.HasPrefix(name, registrationPrefix):
		name, sequence, ok := parseRegistrationName(name)
		if !ok {
			return unexpected(file)
		}
		in.takeRegistration(file, name, sequence)
	case name == probeDescriptor: // of a daemon that was killed meanwhile
		in.useless = append(in.useless, name)
	default:
		return unexpected(file)
	}
	return nil
}

// takeRegistration keeps the newest of each project.
func (in *inheritance) takeRegistration(file *os.File, name schema.ProjectName, sequence uint64) {
	r, err := unseal(file)
	older, twice := in.registrations[name]
	switch {
	case err != nil || r.Name != name || (twice && older.sequence > sequence):
		in.useless = append(in.useless, registrationName(name, sequence))
		return
	case twice:
		in.useless = append(in.useless, registrationName(name, older.sequence))
	}
	in.registrations[name] = inheritedRegistration{r, sequence}
}

func unexpected(file *os.File) error {
	return fmt.Errorf("the service manager passed a descriptor named %q: only %s, %sNAME and %sNAME@N are known", file.Name(), adminDescriptor, listenerPrefix, registrationPrefix)
}

func (in *inheritance) close() {
	if in.admin != nil {
		in.admin.Close()
	}
	for _, l := range in.listeners {
		l.Close()
	}
}

// listenerOf makes a listener of a descriptor that is one: a Unix stream socket
// that listens.
func listenerOf(file *os.File) (*net.UnixListener, error) {
	fd := int(file.Fd())
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || listens == 0 {
		return nil, fmt.Errorf("it is no listening socket")
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok || u.Addr().Network() != "unix" {
		l.Close()
		return nil, fmt.Errorf("it is no Unix stream socket")
	}
	return u, nil
}
