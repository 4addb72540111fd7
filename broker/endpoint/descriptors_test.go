package endpoint

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// lingeringSocket returns a TCP socket whose last close blocks for an hour. The function
// release ends a blocked close.
func lingeringSocket(t *testing.T) (fd int, release func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sender, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { receiver.Close() })
	sender.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for err = nil; err == nil; { // write until the buffers of both sides are full
		_, err = sender.Write(make([]byte, 1<<20))
	}
	sender.(*net.TCPConn).SetLinger(3600)
	file, err := sender.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	fd, err = unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	// All file descriptors refer to the same socket, so only the last close blocks.
	file.Close()
	sender.Close()
	return fd, func() { receiver.(*net.TCPConn).SetLinger(0); receiver.Close() }
}

// passDescriptor sends data together with the file descriptor fd, and then closes fd. flags are
// those of sendmsg(2). If sending fails, passDescriptor calls release, because closing fd would
// otherwise block.
func passDescriptor(c *net.UnixConn, data string, fd, flags int, release func()) error {
	defer unix.Close(fd)
	raw, err := c.SyscallConn()
	if err == nil {
		controlErr := raw.Control(func(socket uintptr) {
			err = unix.Sendmsg(int(socket), []byte(data), unix.UnixRights(fd), nil, flags)
		})
		if err == nil {
			err = controlErr
		}
	}
	if err != nil {
		release()
	}
	return err
}

// kernelCanRefuse reports whether the kernel has the option SO_PASSRIGHTS.
func kernelCanRefuse(t *testing.T) bool {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS)
	return err != unix.ENOPROTOOPT
}

// TestLingeringSocketBlocksPlainRead checks that a plain read blocks if a lingering socket
// was passed with the data. If the read did not block, the test
// TestPassedDescriptorsAreRefused would prove nothing.
func TestLingeringSocketBlocksPlainRead(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	file := os.NewFile(uintptr(fds[0]), "sender")
	sender, err := net.FileConn(file)
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	fd, release := lingeringSocket(t)
	if err := passDescriptor(sender.(*net.UnixConn), "x", fd, 0, release); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() { // release ends this goroutine
		defer close(read)
		unix.Read(fds[1], make([]byte, 1))
	}()
	select {
	case <-read:
		t.Error("a plain read does not block, so TestPassedDescriptorsAreRefused proves nothing")
	case <-time.After(200 * time.Millisecond):
	}
	release()
	<-read
}

// TestPassedDescriptorsAreRefused passes file descriptors of TCP sockets whose close would block.
// It passes them within a line, with the end of a line, with the end of one line and the
// beginning of the next line, and with out-of-band data. The connections must end, although the
// close would block. If the kernel accepts the file descriptors, a session that reads the request
// must answer with an error.
func TestPassedDescriptorsAreRefused(t *testing.T) {
	for _, mustPeek := range []bool{true, false} {
		serves := map[string]func(*Session){
			"request": answerOK,
			"refused": func(s *Session) { s.WriteRefusal(Refuse(schema.CodePeerUnexpected, "no"), nil) },
			"no read": func(*Session) {},
		}
		for name, serve := range serves {
			t.Run(fmt.Sprintf("%s, must peek %v", name, mustPeek), func(t *testing.T) {
				if !mustPeek && !kernelCanRefuse(t) {
					t.Skip("this kernel is older than Linux 6.16")
				}
				e, path := start(t, serve, mustPeek)
				for _, sent := range []struct {
					data  string
					flags int
				}{{"x", 0}, {"{}\n", 0}, {"{}\n{}", 0}, {"x", unix.MSG_OOB}} {
					c := dial(t, path)
					if name != "no read" {
						fmt.Fprint(c, "{}\n{") // the file descriptor arrives within the second line
					}
					fd, release := lingeringSocket(t)
					defer release()
					err := passDescriptor(c, sent.data, fd, sent.flags, release)
					if !mustPeek && err == nil {
						t.Error("the kernel accepted a file descriptor, although the broker told it to refuse them")
					}
					c.CloseWrite()
					answers, _ := io.ReadAll(c)
					if name == "request" && mustPeek && !bytes.Contains(answers, []byte("a client must not pass file descriptors")) {
						t.Errorf("the answers do not report the passed file descriptor: %s", answers)
					}
					c.Close()
				}
				waitUntil(t, func() bool { return e.Connections() == 0 })
				e.Close()
			})
		}
	}
}

// TestPassedDescriptorsCount passes a file descriptor. Closing the passed file can take the
// broker a long time, so the connection must count as descriptorsCost requests.
func TestPassedDescriptorsCount(t *testing.T) {
	var limit *Limiter
	handler := okHandler()
	for name, serve := range map[string]func(*Session){
		"allowed": func(s *Session) { s.Run(handler) },
		"refused": func(s *Session) { s.WriteRefusal(Refuse(schema.CodePeerUnexpected, "no"), limit) },
	} {
		limit = NewLimiter(0.001, descriptorsCost) // a burst of descriptorsCost requests
		handler.Limit = limit
		e, path := start(t, serve, true)
		c := dial(t, path)
		fd, release := lingeringSocket(t)
		defer release()
		if err := passDescriptor(c, "{}", fd, 0, release); err != nil {
			t.Fatal(err)
		}
		c.CloseWrite()
		io.ReadAll(c)
		waitUntil(t, func() bool { return e.Connections() == 0 })
		if limit.Reserve(1, time.Now()) == 0 {
			t.Errorf("%s: the next request need not wait", name)
		}
	}
}
