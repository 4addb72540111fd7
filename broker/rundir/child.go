package rundir

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"golang.org/x/sys/unix"
)

// childName is argument 0 of a child process. IsChild recognizes a child process by this name.
const childName = "keyhatchd-directories"

// maxMessage is the maximum size of an operation and of a result, in bytes.
const maxMessage = 8 << 10

// childStartTimeout is the maximum time until a new child process is ready.
const childStartTimeout = 10 * time.Second

// directoryTimeout is the maximum time of each operation in a directory that a container
// mounts.
const directoryTimeout = time.Second

// IsChild reports whether this process is a child process of a broker. A program that uses a
// Dir must call IsChild at the beginning of main. If the result is true, the program must call
// RunChild and then exit. A test that uses a Dir must do the same in TestMain.
func IsChild() bool { return len(os.Args) == 2 && os.Args[0] == childName }

// RunChild runs the operations that the broker sends over standard input, which is a socket.
// It returns when the broker closes the other end of the socket or ends, or if it cannot use the
// socket.
func RunChild() {
	conn, err := net.FileConn(os.Stdin)
	if err != nil {
		return
	}
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return
	}
	line, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	for r := (result{file: -1}); ; { // the first result means that this process is ready
		answer, err := wire.Encode(r)
		if err == nil {
			_, _, err = socket.WriteMsgUnix(answer, passDescriptor(r.file), nil)
		}
		if err != nil {
			return
		}
		unix.Close(r.file)
		n, rightsSize, _, _, err := socket.ReadMsgUnix(line, rights)
		if err != nil {
			return
		}
		r = runLine(os.Args[1], line[:n], rights[:rightsSize])
	}
}

func runLine(runtimeDir string, line, rights []byte) result {
	var o operation
	if err := wire.Decode(line, &o, 2); err != nil {
		return result{Error: err.Error(), file: -1}
	}
	socket := receivedDescriptor(rights)
	if socket >= 0 {
		defer unix.Close(socket)
	}
	r, err := o.run(runtimeDir, socket)
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// passDescriptor returns a control message that passes a file descriptor. The message is empty
// if the file descriptor is -1.
func passDescriptor(fd int) []byte {
	if fd < 0 {
		return nil
	}
	return unix.UnixRights(fd)
}

// receivedDescriptor returns the file descriptor in a control message, or -1 if there is none.
func receivedDescriptor(rights []byte) int {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) == 0 {
		return -1
	}
	descriptors, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(descriptors) == 0 {
		return -1
	}
	return descriptors[0]
}

// A child is a child process that runs one operation after the other.
type child struct {
	conn    *net.UnixConn
	process *os.Process
	ended   chan struct{} // closed when the process has ended
}

// startChild starts a child process and waits until the process is ready. The child process does
// not inherit the environment of the broker. It inherits only one file descriptor, which is its
// end of a connection to the broker. When the broker ends, the kernel closes the broker's end of
// the connection, and the child process ends, too.
func startChild(runtimeDir string) (*child, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("starting a child process: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(ends[0]), ""), os.NewFile(uintptr(ends[1]), "")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("starting a child process: %w", err)
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{childName, runtimeDir}, Dir: "/",
		Env:   []string{"GOMAXPROCS=1"}, // so that the child process needs fewer threads and less memory
		Stdin: theirs,
		// Without a separate process group, the child process would also get the SIGINT of a
		// terminal.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("starting a child process: %w", err)
	}
	c := &child{conn.(*net.UnixConn), cmd.Process, make(chan struct{})}
	go func() { // ends when the process has ended
		cmd.Wait()
		close(c.ended)
	}()
	c.conn.SetDeadline(time.Now().Add(childStartTimeout))
	if _, err := c.receive(); err != nil {
		c.kill()
		return nil, fmt.Errorf("starting a child process: %w", err)
	}
	return c, nil
}

// run sends an operation to the child process and waits for the result. It also passes the file
// descriptor socket, unless socket is -1. If the operation itself fails, the result contains the
// error. If run returns an error, the child process has not sent a valid result within
// directoryTimeout, and may still be running the operation.
func (c *child) run(o operation, socket int) (result, error) {
	line, err := wire.Encode(o)
	if err != nil {
		return result{}, err
	}
	c.conn.SetDeadline(time.Now().Add(directoryTimeout))
	if _, _, err := c.conn.WriteMsgUnix(line, passDescriptor(socket), nil); err != nil {
		return result{}, err
	}
	return c.receive()
}

func (c *child) receive() (r result, err error) {
	line, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, rightsSize, _, _, err := c.conn.ReadMsgUnix(line, rights)
	if err != nil {
		return result{}, err
	}
	r.file = receivedDescriptor(rights[:rightsSize])
	if err := wire.Decode(line[:n], &r, 2); err != nil {
		unix.Close(r.file)
		return result{}, err
	}
	return r, nil
}

// end closes the connection to the child process. If the process runs no operation, it then ends.
func (c *child) end() { c.conn.Close() }

// kill kills the child process, and does not wait for its end. If a system call of the process
// waits for a lock of the kernel, the process ends only when the system call gets the lock.
func (c *child) kill() {
	c.conn.Close()
	c.process.Kill()
}

func (c *child) hasEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}
