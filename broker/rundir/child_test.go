package rundir

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain runs the tests. A Dir in a test starts the test binary as its child process. In the
// child process, TestMain runs no tests, and only calls RunChild.
func TestMain(m *testing.M) {
	if IsChild() {
		RunChild()
		return
	}
	m.Run()
}

func openTestDir(t *testing.T) *Dir {
	t.Helper()
	path, err := os.MkdirTemp("", "kh") // a short path, because a socket path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(path) })
	d, err := Open(filepath.Join(path, "run"), -1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// idleChild takes the idle child process out of a Dir, and returns it.
func idleChild(t *testing.T, d *Dir) *child {
	t.Helper()
	select {
	case c := <-d.children.idle:
		return c
	default:
		t.Fatal("no child process is idle")
		return nil
	}
}

// TestOperationsInChild creates, identifies, finds, and removes the socket of a project. It also
// runs operations that must fail. Each result and each error must come back from the child process.
func TestOperationsInChild(t *testing.T) {
	d := openTestDir(t)
	socket, err := d.BindProject("/a")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Listener.Close()
	path := socketIn(filepath.Join(d.path, projectDir("/a")))
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o666 {
		t.Errorf("the mode of the socket is %v, error %v", info.Mode(), err)
	}
	id, err := d.ProjectSocketID("/a")
	if err != nil || id != socket.ID || id == (SocketID{}) {
		t.Errorf("the ID of the socket is %v, error %v, want %v", id, err, socket.ID)
	}
	if found, ok := d.FindSocket("/a", socket.Listener); !ok || found != socket {
		t.Errorf("FindSocket returned %v and %t, want %v", found, ok, socket)
	}
	other, err := d.BindProject("/b")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Listener.Close()
	if err := d.RemoveSocket("/a", other.ID); err != nil {
		t.Error(err)
	}
	if err := unix.Access(path, 0); err != nil {
		t.Errorf("RemoveSocket has removed a socket with another ID: %v", err)
	}
	if err := d.RemoveSocket("/a", socket.ID); err != nil {
		t.Error(err)
	}
	if id, err := d.ProjectSocketID("/a"); err != nil || id != (SocketID{}) {
		t.Errorf("after the socket was removed, its ID is %v, error %v", id, err)
	}
	// The test listens on the socket. opFind must return no ID, because it gets the credentials of
	// another process.
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r, err := d.children.run(operation{Name: opFind, Dir: projectDir("/a"), Credentials: unix.Ucred{Pid: 1, Uid: 1, Gid: 1}}, -1)
	if err != nil || r.ID != (SocketID{}) {
		t.Errorf("the credentials of another process are accepted: %v, error %v", r, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := d.BindProject("/a"); err == nil || !strings.Contains(err.Error(), "cannot replace") {
		t.Errorf("the error of binding over a directory is %v", err)
	}
	if _, err := d.children.run(operation{Name: "other", Dir: projectDir("/a")}, -1); err == nil || !strings.Contains(err.Error(), "unknown operation") {
		t.Errorf("the error of an unknown operation is %v", err)
	}
}

// TestUnchangedSocketNeedsNoChild calls ProjectSocketID, which must start no child process for an
// unchanged socket file. After the socket file was removed, renamed, or replaced, ProjectSocketID
// must not return the old ID, and BindProject must be able to create the socket again.
func TestUnchangedSocketNeedsNoChild(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"removed":  os.Remove,
		"renamed":  func(path string) error { return os.Rename(path, path+".old") },
		"replaced": func(path string) error { return errors.Join(os.Remove(path), os.Symlink("x", path)) },
		"replaced by another socket": func(path string) error {
			l, err := listenUnix(path+".new", 0o666, -1)
			if err != nil {
				return err
			}
			l.Close()
			return os.Rename(path+".new", path)
		},
		"moved to a directory with the same name": func(path string) error {
			dir := filepath.Join(filepath.Dir(path), "projects", filepath.Base(filepath.Dir(path)))
			return errors.Join(os.MkdirAll(dir, 0o755), os.Rename(path, socketIn(dir)))
		},
		"replaced by a directory": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) },
	} {
		d := openTestDir(t)
		socket, err := d.BindProject("/a")
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Listener.Close()
		d.children.endIdle()
		if id, err := d.ProjectSocketID("/a"); err != nil || id != socket.ID {
			t.Errorf("the ID of the socket is %v, error %v, want %v", id, err, socket.ID)
		}
		if len(d.children.idle) > 0 {
			t.Error("checking an unchanged socket file needs a child process")
		}
		if err := change(socketIn(filepath.Join(d.path, projectDir("/a")))); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if id, err := d.ProjectSocketID("/a"); err != nil || id == socket.ID {
				t.Errorf("%s: the ID of the socket is %v, error %v", name, id, err)
			}
		}
		again, err := d.BindProject("/a")
		if err != nil {
			t.Errorf("%s: binding again: %v", name, err)
			continue
		}
		defer again.Listener.Close()
		if id, err := d.ProjectSocketID("/a"); err != nil || id != again.ID {
			t.Errorf("%s: after binding again, the ID of the socket is %v, error %v, want %v", name, id, err, again.ID)
		}
	}
}

// TestLinkMovesDirectoryAway creates a link at the place of an empty directory. Link must rename
// the directory and not remove it (see moveAway). CheckName must refuse a directory with content,
// and a file that is not a link.
func TestLinkMovesDirectoryAway(t *testing.T) {
	d := openTestDir(t)
	place := d.NameLink("api")
	if err := os.Mkdir(place, 0o755); err != nil {
		t.Fatal(err)
	}
	mounted, err := os.Open(place)
	if err != nil {
		t.Fatal(err)
	}
	defer mounted.Close()
	if err := d.CheckName("api", "/a"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Link("api", nil, "/a"); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(place); err != nil || target != directoryName("/a") {
		t.Errorf("the link leads to %q, error %v", target, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(mounted.Fd()), &st); err != nil || st.Nlink == 0 {
		t.Errorf("the broker has removed the directory, error %v", err)
	}
	if err := os.MkdirAll(d.NameLink("web")+"/x", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.CheckName("web", "/w"); err == nil || !strings.Contains(err.Error(), "directory with content") {
		t.Errorf("the error for a directory with content is %v", err)
	}
	if err := os.WriteFile(d.NameLink("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.CheckName("file", "/f"); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("the error for a file is %v", err)
	}
}

// TestChildThatEndedIsReplaced kills an idle child process, and another child process that runs an
// operation. After each kill, the next operation must work.
func TestChildThatEndedIsReplaced(t *testing.T) {
	d := openTestDir(t)
	if _, err := d.ProjectSocketID("/a"); err != nil {
		t.Fatal(err)
	}
	c := idleChild(t, d)
	c.process.Kill()
	<-c.ended
	d.children.release(c)
	if _, err := d.ProjectSocketID("/a"); err != nil {
		t.Errorf("after the idle child process was killed: %v", err)
	}
	idleChild(t, d).end()
	peer, killed := fakeChild(t)
	d.children.release(killed)
	go func() { // ends when the operation begins
		peer.Read(make([]byte, maxMessage))
		killed.process.Kill()
		peer.Close() // as the kernel does when a real child process ends
	}()
	if _, err := d.ProjectSocketID("/a"); err == nil || errors.Is(err, ErrBlocked) {
		t.Errorf("the error of an operation whose child process was killed is %v", err)
	}
	if _, err := d.ProjectSocketID("/a"); err != nil {
		t.Errorf("after the child process was killed during an operation: %v", err)
	}
}

// TestBlockedChildIsAbandoned stops a child process (SIGSTOP), so that the operation of this
// process does not end. The operation must fail with ErrBlocked, the child process must end, and
// the next operation must work.
func TestBlockedChildIsAbandoned(t *testing.T) {
	d := openTestDir(t)
	if _, err := d.ProjectSocketID("/a"); err != nil {
		t.Fatal(err)
	}
	c := idleChild(t, d)
	c.process.Signal(unix.SIGSTOP)
	if err := unix.Waitid(unix.P_PID, c.process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	d.children.release(c)
	if _, err := d.ProjectSocketID("/a"); !errors.Is(err, ErrBlocked) {
		t.Errorf("the error is %v, want ErrBlocked", err)
	}
	<-c.ended
	if _, err := d.ProjectSocketID("/a"); err != nil {
		t.Error(err)
	}
}

// TestDirectoryHasOneBlockedChild runs operations in a directory whose child process was
// killed but cannot end. No other child process may start for this directory. Operations in
// other directories must work.
func TestDirectoryHasOneBlockedChild(t *testing.T) {
	d := openTestDir(t)
	peer, blocked := fakeChild(t)
	defer peer.Close()
	killed := blocked.ended
	blocked.ended = make(chan struct{}) // the process seems not to end, as if its system call waited in the kernel
	d.children.release(blocked)
	for range 2 {
		if _, err := d.ProjectSocketID("/a"); !errors.Is(err, ErrBlocked) {
			t.Errorf("the error is %v, want ErrBlocked", err)
		}
	}
	if len(d.children.idle) > 0 {
		t.Error("a second child process was started for the blocked directory")
	}
	if _, err := d.ProjectSocketID("/b"); err != nil {
		t.Errorf("another directory is blocked, too: %v", err)
	}
	<-killed
	close(blocked.ended)
	if _, err := d.ProjectSocketID("/a"); err != nil {
		t.Errorf("after the child process has ended: %v", err)
	}
}

// TestBlockedChildDelaysNobodyElse runs an operation in one directory while the only
// child process is blocked by an operation in another directory. The new operation must
// not wait for the blocked operation.
func TestBlockedChildDelaysNobodyElse(t *testing.T) {
	d := openTestDir(t)
	peer, blocked := fakeChild(t)
	defer peer.Close()
	d.children.release(blocked)
	failed := make(chan error, 1)
	go func() { // ends when the operation fails
		_, err := d.ProjectSocketID("/a")
		failed <- err
	}()
	peer.Read(make([]byte, maxMessage)) // wait until the operation has begun
	if _, err := d.ProjectSocketID("/b"); err != nil {
		t.Error(err)
	}
	select {
	case err := <-failed:
		t.Errorf("the other operation waited until the blocked operation failed: %v", err)
	default:
		if err := <-failed; !errors.Is(err, ErrBlocked) {
			t.Errorf("the error of the blocked operation is %v, want ErrBlocked", err)
		}
	}
}

// TestWrongAnswerEndsChild sends wrong results of operations from a child process to the broker.
// Each of these operations must fail, and the broker must kill the child process.
func TestWrongAnswerEndsChild(t *testing.T) {
	d := openTestDir(t)
	for _, answer := range []string{"x", "{", `{"id":1}`, `{"entries":"1"}`, `{"id":{"device":-1}}`, strings.Repeat(" ", maxMessage) + "{}"} {
		peer, c := fakeChild(t)
		d.children.release(c)
		go func() { // ends after the write, or when peer is closed
			peer.Read(make([]byte, maxMessage))
			peer.Write([]byte(answer))
		}()
		if _, err := d.ProjectSocketID("/a"); err == nil || errors.Is(err, ErrBlocked) {
			t.Errorf("the error for the answer %.20q is %v", answer, err)
		}
		<-c.ended
		peer.Close()
	}
	if _, err := d.ProjectSocketID("/a"); err != nil {
		t.Error(err)
	}
}

// fakeChild returns a child whose operations the test answers itself: the test reads each
// operation from peer, and writes the result to peer. The process of the child does nothing.
func fakeChild(t *testing.T) (peer net.Conn, c *child) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, end := range ends {
		file := os.NewFile(uintptr(end), "")
		defer file.Close()
		if conns[i], err = net.FileConn(file); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends when the broker kills the process
		cmd.Wait()
		close(ended)
	}()
	return conns[0], &child{conns[1].(*net.UnixConn), cmd.Process, ended}
}

// TestIdleChildEnds closes a Dir that has an idle child process. The child process must end,
// because Close closes the broker's end of the connection. The kernel does the same if the broker
// is killed.
func TestIdleChildEnds(t *testing.T) {
	d := openTestDir(t)
	if _, err := d.ProjectSocketID("/a"); err != nil {
		t.Fatal(err)
	}
	c := idleChild(t, d)
	d.children.release(c)
	d.Close() // a second call at the end of the test has no effect
	<-c.ended
}
