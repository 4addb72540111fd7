package main

import (
	"errors"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// A serviceManager stores all file descriptors that it receives, like systemd with a
// sufficient FileDescriptorStoreMax=. It closes the file descriptors of all other
// messages, for example of a barrier (BARRIER=1 in sd_notify(3)).
type serviceManager struct {
	path   string
	socket *net.UnixConn
	ready  chan struct{} // closed when READY=1 arrives
	ended  chan struct{}
	stored map[string][]int
}

func newServiceManager(path string) (*serviceManager, error) {
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	m := &serviceManager{path, socket, make(chan struct{}), make(chan struct{}), map[string][]int{}}
	go m.serve() // this goroutine ends when close closes the socket
	return m, nil
}

func (m *serviceManager) close() {
	m.socket.Close()
	<-m.ended
	for _, fds := range m.stored {
		closeAll(fds)
	}
}

// isReady returns an error until the service manager has received READY=1.
func (m *serviceManager) isReady() error {
	select {
	case <-m.ready:
		return nil
	default:
		return errors.New("the service is not ready")
	}
}

func (m *serviceManager) serve() {
	defer close(m.ended)
	message, rights := make([]byte, 4096), make([]byte, 4096)
	for {
		n, rightsLength, _, _, err := m.socket.ReadMsgUnix(message, rights)
		if err != nil {
			return
		}
		var fds []int
		if messages, err := unix.ParseSocketControlMessage(rights[:rightsLength]); err == nil && len(messages) > 0 {
			fds, _ = unix.ParseUnixRights(&messages[0])
		}
		variables := map[string]string{}
		for line := range strings.Lines(string(message[:n])) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			variables[key] = value
		}
		name := variables["FDNAME"]
		switch {
		case variables["READY"] == "1":
			close(m.ready) // READY=1 arrives only once, because the benchmark sends no SIGHUP
		case variables["FDSTOREREMOVE"] == "1":
			closeAll(m.stored[name])
			delete(m.stored, name)
		case variables["FDSTORE"] == "1":
			m.stored[name] = append(m.stored[name], fds...)
		default:
			closeAll(fds)
		}
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
