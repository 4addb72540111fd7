package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A serviceManager replaces systemd for the broker: it has the admin listener and a store of
// file descriptors, and passes both to each broker (sd_notify(3), sd_listen_fds(3)).
type serviceManager struct {
	path   string
	socket *net.UnixConn
	admin  *os.File
	synced chan struct{}
	ended  chan struct{}

	mu    sync.Mutex
	store []storedDescriptor
	ready bool // the current broker has sent READY=1
}

type storedDescriptor struct {
	name string
	file *os.File
}

// syncMessage is a message that the service manager sends to itself. See sync.
const syncMessage = "SYNC"

func newServiceManager(path, adminSocket string) (*serviceManager, error) {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: adminSocket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	admin, err := listener.File()
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	m := &serviceManager{path: path, socket: socket, admin: admin, synced: make(chan struct{}), ended: make(chan struct{})}
	go m.serve() // this goroutine ends when close closes the socket
	return m, nil
}

func (m *serviceManager) close() {
	m.socket.Close()
	<-m.ended
	m.admin.Close()
	for _, s := range m.store {
		s.file.Close()
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
		m.handle(strings.Split(string(message[:n]), "\n"), fds)
	}
}

func (m *serviceManager) handle(lines []string, fds []int) {
	if slices.Contains(lines, syncMessage) {
		m.synced <- struct{}{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready = m.ready || slices.Contains(lines, "READY=1")
	name := ""
	for _, line := range lines {
		if text, ok := strings.CutPrefix(line, "FDNAME="); ok {
			name = text
		}
	}
	if slices.Contains(lines, "FDSTOREREMOVE=1") {
		m.store = slices.DeleteFunc(m.store, func(s storedDescriptor) bool {
			if s.name == name {
				s.file.Close()
			}
			return s.name == name
		})
	}
	for _, fd := range fds {
		if slices.Contains(lines, "FDSTORE=1") {
			m.store = append(m.store, storedDescriptor{name, os.NewFile(uintptr(fd), name)})
		} else {
			unix.Close(fd) // closing the file descriptor answers BARRIER=1 (sd_notify(3))
		}
	}
}

// sync waits until serve has handled all messages of a broker that has ended.
func (m *serviceManager) sync() error {
	conn, err := net.Dial("unixgram", m.path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(syncMessage)); err != nil {
		return err
	}
	<-m.synced
	return nil
}

// start changes the command c so that the program gets the admin listener and the stored file
// descriptors. Then it calls the function start with c.
func (m *serviceManager) start(c *exec.Cmd, start func(*exec.Cmd) error) error {
	if err := m.sync(); err != nil {
		return fmt.Errorf("sending a message to the service manager: %w", err)
	}
	m.mu.Lock() // so that no stored file is closed before the command has started
	defer m.mu.Unlock()
	names := []string{"admin"}
	c.ExtraFiles = []*os.File{m.admin}
	for _, s := range m.store {
		names, c.ExtraFiles = append(names, s.name), append(c.ExtraFiles, s.file)
	}
	// The shell sets LISTEN_PID to its own process ID and then becomes the program.
	c.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", c.Path}, c.Args[1:]...)
	c.Path = "/bin/sh"
	c.Env = append(c.Env, "NOTIFY_SOCKET="+m.path, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	m.ready = false
	return start(c)
}

// isReady reports whether the current broker has sent READY=1. Before READY=1, SIGHUP would
// end the broker.
func (m *serviceManager) isReady() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ready
}

// stored returns the names of the stored file descriptors without sequence numbers.
func (m *serviceManager) stored() (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.store {
		name, _, _ := strings.Cut(s.name, "@")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
