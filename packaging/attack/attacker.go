package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func dial(socket string) (*net.UnixConn, error) {
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
}

// lingeringSocket returns the file descriptor of a TCP socket, and the other end of the
// connection. The last close of the socket can block for an hour, because the receiver
// does not read.
func lingeringSocket(l net.Listener) (fd int, receiver net.Conn, err error) {
	sender, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return -1, nil, err
	}
	defer sender.Close()
	if receiver, err = l.Accept(); err != nil {
		return -1, nil, err
	}
	tcp := sender.(*net.TCPConn)
	tcp.SetWriteBuffer(4 << 10)
	receiver.(*net.TCPConn).SetReadBuffer(4 << 10)
	tcp.SetWriteDeadline(time.Now().Add(2 * time.Millisecond))
	for err == nil {
		_, err = tcp.Write(make([]byte, 64<<10))
	}
	tcp.SetLinger(3600)
	file, err := tcp.File()
	if err != nil {
		return -1, nil, err
	}
	defer file.Close()
	fd, err = unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	return fd, receiver, err
}

// sendDescriptors opens connections one after the other. On each connection, it sends a
// complete line and the beginning of a second line, and then passes file descriptors. The broker
// can hang when it closes them (see lingeringSocket). An attempt succeeds if the kernel accepts
// the file descriptors.
func sendDescriptors(socket string, count int) (attempts, succeeded int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0
	}
	defer l.Close()
	var receivers []net.Conn
	defer func() {
		for _, r := range receivers {
			r.(*net.TCPConn).SetLinger(0)
			r.Close()
		}
	}()
	for range count {
		c, err := dial(socket)
		if err != nil {
			continue
		}
		fd, receiver, err := lingeringSocket(l)
		if err != nil {
			c.Close()
			continue
		}
		attempts++
		c.Write([]byte("{}\n{"))
		// Pass 50 copies of the file descriptor, so that 50 file descriptors must be closed on
		// the side of the broker.
		rights := make([]int, 50)
		for i := range rights {
			rights[i] = fd
		}
		if attempts%2 == 0 {
			_, _, err = c.WriteMsgUnix([]byte("x"), unix.UnixRights(rights...), nil)
		} else { // a broker that only peeks (MSG_PEEK) would not see out-of-band data
			err = sendOutOfBand(c, rights)
			c.Write([]byte("}\n"))
		}
		if err == nil {
			succeeded++
			unix.Close(fd) // now only the connection to the broker refers to the TCP socket
			receivers = append(receivers, receiver)
		} else {
			receiver.(*net.TCPConn).SetLinger(0)
			receiver.Close()
			unix.Close(fd)
		}
		c.CloseWrite()
		c.SetReadDeadline(time.Now().Add(time.Second))
		io.Copy(io.Discard, c)
		c.Close()
	}
	return attempts, succeeded
}

// sendOutOfBand passes file descriptors together with an out-of-band byte.
func sendOutOfBand(c *net.UnixConn, descriptors []int) (err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if controlErr := raw.Control(func(fd uintptr) {
		err = unix.Sendmsg(int(fd), []byte("x"), unix.UnixRights(descriptors...), nil, unix.MSG_OOB)
	}); controlErr != nil {
		return controlErr
	}
	return err
}

// fillFiles writes files into a directory until its standard input is closed. fillFiles
// uses all space of the file system, also space that becomes free during the attack. An
// attempt succeeds if the file can be created.
func fillFiles(dir string, _ int) (attempts, succeeded int) {
	ended := make(chan struct{})
	go func() { io.Copy(io.Discard, os.Stdin); close(ended) }()
	for {
		select {
		case <-ended:
			return attempts, succeeded
		default:
		}
		attempts++
		file, err := os.OpenFile(filepath.Join(dir, fmt.Sprint("filler-", attempts)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			continue
		}
		succeeded++
		for err == nil {
			_, err = file.Write(make([]byte, 4096))
		}
		file.Close()
	}
}

// sendAndDoNotRead opens many connections. On each connection, it sends requests, shuts down
// its writing side, and does not read the answers. An attempt succeeds if the requests could
// be sent.
func sendAndDoNotRead(socket string, count int) (attempts, succeeded int) {
	var open []*net.UnixConn
	for range count {
		attempts++
		c, err := dial(socket)
		if err != nil { // for example, the backlog of the socket is full
			time.Sleep(time.Millisecond)
			continue
		}
		c.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := c.Write([]byte(strings.Repeat("\n", 240))); err == nil {
			succeeded++
		}
		c.CloseWrite()
		open = append(open, c)
	}
	io.Copy(io.Discard, os.Stdin) // wait until the effect of the attack has been measured
	runtime.KeepAlive(open)
	return attempts, succeeded
}

// flood sends a text again and again over 64 connections, and reads the answers. Both results
// are the number of times that it has sent the text.
func flood(socket string, seconds int, text string) (attempts, succeeded int) {
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	done := make(chan int)
	for range 64 {
		go func() {
			sent := 0
			for time.Now().Before(end) {
				c, err := dial(socket)
				if err != nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				c.SetDeadline(end)
				go io.Copy(io.Discard, c)
				for err == nil {
					if _, err = c.Write([]byte(text)); err == nil {
						sent++
					}
				}
				c.Close()
			}
			done <- sent
		}()
	}
	for range 64 {
		attempts += <-done
	}
	return attempts, attempts
}

// floodConnects opens and closes connections as fast as possible, in eight goroutines. An
// attempt succeeds if the client can connect.
func floodConnects(socket string, seconds int) (attempts, succeeded int) {
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	counts := make(chan [2]int)
	for range 8 {
		go func() {
			var count [2]int
			for time.Now().Before(end) {
				c, err := net.DialTimeout("unix", socket, 100*time.Millisecond)
				count[0]++
				if err == nil {
					count[1]++
					c.Close()
				} else {
					time.Sleep(time.Millisecond) // the backlog of the socket is probably full
				}
			}
			counts <- count
		}()
	}
	for range 8 {
		count := <-counts
		attempts += count[0]
		succeeded += count[1]
	}
	return attempts, succeeded
}

// holdConnections opens connections, and closes them when its standard input is closed. An
// attempt succeeds if the client can connect.
func holdConnections(socket string, count int) (attempts, succeeded int) {
	var open []net.Conn
	for range count {
		c, err := net.DialTimeout("unix", socket, 100*time.Millisecond)
		attempts++
		if err == nil {
			succeeded++
			open = append(open, c)
		}
	}
	io.Copy(io.Discard, os.Stdin)
	for _, c := range open {
		c.Close()
	}
	return attempts, succeeded
}

// waitSendLeave requests a secret that does not exist, with a wait of 300 seconds. It sends
// one more byte and closes the connection while the request waits. An attempt succeeds if the
// request could be sent.
func waitSendLeave(socket string, count int) (attempts, succeeded int) {
	for range count {
		c, err := dial(socket)
		attempts++
		if err != nil {
			continue
		}
		if _, err := c.Write([]byte(`{"op":"get","name":"MISSING","wait_ms":300000}` + "\n{")); err == nil {
			succeeded++
		}
		c.Close()
	}
	return attempts, succeeded
}

// readRefusals connects with a uid that the project does not allow. An attempt succeeds if
// the client can send its request and read the refusal.
func readRefusals(socket string, count int) (attempts, succeeded int) {
	for range count {
		attempts++
		c, err := dial(socket)
		if err != nil {
			continue
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		time.Sleep(time.Millisecond) // the broker usually sends the refusal during this time
		_, writeErr := c.Write([]byte(`{"op":"get","name":"A"}` + "\n"))
		answer, _ := io.ReadAll(c)
		if writeErr == nil && strings.Contains(string(answer), "peer_unexpected") {
			succeeded++
		}
		c.Close()
	}
	return attempts, succeeded
}

// fetchAllTheTime fetches an allowed secret again and again over one connection. The request
// limit of the broker slows this client down. An attempt succeeds if the client gets the
// value.
func fetchAllTheTime(socket string, seconds int) (attempts, succeeded int) {
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	c, err := dial(socket)
	if err != nil {
		return 0, 0
	}
	defer c.Close()
	c.SetDeadline(end)
	buffer := make([]byte, 4096)
	for time.Now().Before(end) {
		attempts++
		if _, err := c.Write([]byte(`{"op":"get","name":"A"}` + "\n")); err != nil {
			break
		}
		n, err := c.Read(buffer)
		if err != nil {
			break
		}
		if strings.Contains(string(buffer[:n]), `"ok":true`) {
			succeeded++
		}
	}
	return attempts, succeeded
}

// beChatty opens connections that could delay a stop of the broker, and uses these connections
// until its standard input is closed. On one third of the connections, it sends requests
// without a pause and reads the answers. On another third, it sends requests and does not
// read. On the last third, it waits for a secret. An attempt succeeds if the client can
// connect.
func beChatty(socket string, count int) (attempts, succeeded int) {
	for i := range count {
		c, err := dial(socket)
		attempts++
		if err != nil {
			continue
		}
		succeeded++
		switch i % 3 {
		case 0:
			go io.Copy(io.Discard, c)
			go func() {
				for err := error(nil); err == nil; {
					_, err = c.Write([]byte(`{"op":"ping"}` + "\n"))
				}
			}()
		case 1:
			go func() {
				for err := error(nil); err == nil; {
					_, err = c.Write([]byte(`{"op":"ping"}` + "\n"))
				}
			}()
		case 2:
			c.Write([]byte(`{"op":"get","name":"MISSING","wait_ms":300000}` + "\n"))
		}
	}
	fmt.Fprintln(os.Stdout, attempts, succeeded)
	os.Stdout.Sync()
	io.Copy(io.Discard, os.Stdin)
	return attempts, succeeded
}

// shutDownInLoop calls shutdown(2) again and again on one connection after the other. Each
// call can wake the broker. attempts is the number of connections, and succeeded is the number
// of calls.
func shutDownInLoop(socket string, seconds int) (attempts, succeeded int) {
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	for i := 0; time.Now().Before(end); i++ {
		c, err := dial(socket)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		attempts++
		direction := unix.SHUT_RD
		switch i % 3 {
		case 0: // the request waits for a secret, and the next request has begun
			c.Write([]byte(`{"op":"get","name":"MISSING","wait_ms":300000}` + "\n{"))
		case 1: // the connection is idle
		case 2: // the broker waits until the client reads the answers
			direction = unix.SHUT_WR
			c.Write([]byte(strings.Repeat("\n", 240)))
			time.Sleep(50 * time.Millisecond)
		}
		stateEnd := time.Now().Add(time.Duration(seconds) * time.Second / 6)
		for time.Now().Before(stateEnd) && (direction == unix.SHUT_WR || !hasEnded(c)) {
			for range 100 {
				shutDownOnce(c, direction)
			}
			succeeded += 100
		}
		c.Close()
	}
	return attempts, succeeded
}

func shutDownOnce(c *net.UnixConn, direction int) {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), direction) })
	}
}

// hasEnded reports whether the broker has closed a connection.
func hasEnded(c *net.UnixConn) bool {
	fds := make([]unix.PollFd, 1) // poll always reports POLLHUP, even if Events is 0
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			fds[0].Fd = int32(fd)
			unix.Poll(fds, 0)
		})
	}
	return fds[0].Revents&unix.POLLHUP != 0
}

// sendHangingFiles passes file descriptors of a file system that does not answer when a file
// is closed. It needs root. An attempt succeeds if the kernel accepts the file descriptor.
func sendHangingFiles(socket string, count int) (attempts, succeeded int) {
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		return 0, 0
	}
	defer os.Remove(dir)
	m, err := mountFUSE(dir, unix.S_IFDIR|0o755)
	if err != nil {
		return 0, 0
	}
	defer m.unmount()
	go m.serve() // unmount ends this goroutine
	for range count {
		c, err := dial(socket)
		if err != nil {
			continue
		}
		fd, err := openRetry(dir, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			c.Close()
			continue
		}
		attempts++
		c.Write([]byte("{}\n{"))
		if _, _, err := c.WriteMsgUnix([]byte("x"), unix.UnixRights(fd), nil); err == nil {
			succeeded++
		}
		unix.Close(fd)
		c.CloseWrite()
		c.SetReadDeadline(time.Now().Add(time.Second))
		io.Copy(io.Discard, c)
		c.Close()
	}
	return attempts, succeeded
}

// moveAnswersIntoPipes moves the pages of large answers into pipes with splice(2). The pipes
// stay open until the standard input of the attacker is closed, and the kernel still counts
// these pages as memory of the broker. count is the number of pipes. An attempt succeeds if
// its pipe is full.
func moveAnswersIntoPipes(socket string, count int) (attempts, succeeded int) {
	const pipeSize = 1 << 18
	for range count {
		var pipe [2]int
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			break
		}
		unix.FcntlInt(uintptr(pipe[1]), unix.F_SETPIPE_SZ, pipeSize)
		attempts++
		c, err := dial(socket)
		if err != nil {
			continue
		}
		c.Write([]byte(`{"op":"get","name":"BIG"}` + "\n"))
		file, err := c.File()
		c.Close()
		if err != nil {
			continue
		}
		for {
			// The pipe is non-blocking, so that splice does not wait for room in the pipe. Because
			// splice then does not wait for data either, poll waits for data.
			readable := []unix.PollFd{{Fd: int32(file.Fd()), Events: unix.POLLIN}}
			if n, err := unix.Poll(readable, 1000); err != nil || n == 0 {
				break
			}
			n, err := unix.Splice(int(file.Fd()), nil, pipe[1], nil, pipeSize, unix.SPLICE_F_MOVE)
			if err == unix.EAGAIN { // the pipe is full
				succeeded++
			}
			if err != nil || n == 0 {
				break
			}
		}
		file.Close()
	}
	fmt.Fprintln(os.Stdout, attempts, succeeded)
	os.Stdout.Sync()
	io.Copy(io.Discard, os.Stdin)
	return attempts, succeeded
}
