package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A load describes the requests that a client process sends to one server. All servers of a
// comparison get their requests from the same code.
type load struct {
	Sockets   []string // the client opens one connection to each of these sockets
	Fresh     bool     // open a new connection for each request
	Window    int      // number of requests that are sent together on a connection
	Requests  [][]byte // the client sends these requests in turn
	Replies   [][]byte // the only correct replies to Requests
	PushCount int      // if not 0, each reply must confirm a push of this many secrets
	CPU       int      // the processor of the client, or -1 for all processors
	Warmup    time.Duration
	Duration  time.Duration
	ServerPID int

	// Beside is a load that runs at the same time in another thread. Only requests that
	// overlap with a request of Beside are measured.
	Beside *load
	Pause  time.Duration // the time to wait before each request
}

// A result contains the measured figures of a load. A latency is the time from the start of
// sending Window requests until all their replies have arrived.
type result struct {
	Sent      int // includes the requests of the warm-up
	PerSecond float64
	P50       float64 // in ns
	P99       float64 // in ns; the maximum if there are at most 100 samples
	ServerCPU float64 // in ns per request; not measured (0) if another load ran at the same time
	ClientCPU float64 // in ns per request; not measured (0) if another load ran at the same time
	Delay     float64 // P99 minus the P99 of the same round without another load, in ns
}

// runClient reads a load from in, runs it, and writes the result to out.
func runClient(in io.Reader, out io.Writer) error {
	var l load
	if err := json.NewDecoder(in).Decode(&l); err != nil {
		return err
	}
	// The client calls the kernel without telling the Go scheduler. The garbage collector
	// would wait for such a call, so the collector must not run. GOMAXPROCS is 2, because
	// the second load needs its own processor of the Go scheduler.
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(2)
	runtime.LockOSThread()
	c := newLoadClient(l)
	if l.Beside == nil {
		r, err := c.run()
		if err != nil {
			return err
		}
		return json.NewEncoder(out).Encode(r)
	}
	other := newLoadClient(*l.Beside)
	other.busy, other.stop = new(atomic.Int64), new(atomic.Bool)
	c.overlap = other.busy
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		_, err := other.run()
		ended <- err
	}()
	r, err := c.run()
	other.stop.Store(true)
	if err := errors.Join(err, <-ended); err != nil {
		return err
	}
	r.ServerCPU, r.ClientCPU = 0, 0
	return json.NewEncoder(out).Encode(r)
}

const maxSamples = 1 << 20

type loadClient struct {
	load
	epoch      time.Time
	buffer     []byte
	samples    []uint32
	recorded   int
	sent       int
	generation int // the generation in the reply to the last push; 0 before the first push

	busy    *atomic.Int64 // the value is odd while a request is running; nil if no other client reads it
	stop    *atomic.Bool  // set to true to end this load; nil if the load ends after Duration
	overlap *atomic.Int64 // the field busy of the client of the other load; nil if there is no other load

	recording    bool
	answered     int // number of answered requests since recording began
	start, ended time.Duration
	cpuAtStart   [2]time.Duration
	cpuAtEnd     [2]time.Duration
}

func newLoadClient(l load) *loadClient {
	c := &loadClient{load: l, epoch: time.Now(), samples: make([]uint32, maxSamples), buffer: make([]byte, 64<<10)}
	clear(c.samples) // so that recording a sample causes no page fault
	return c
}

func (c *loadClient) run() (result, error) {
	run := c.runOneConnection
	if len(c.Sockets) > 1 {
		run = c.runConnections
	}
	if err := run(); err != nil {
		return result{}, err
	}
	samples := c.samples[:min(c.recorded, maxSamples)]
	if len(samples) == 0 {
		return result{}, errors.New("no request was measured: no request ran at the same time as a request of the other load, or the load was stopped too early")
	}
	slices.Sort(samples)
	n := float64(c.answered)
	return result{
		Sent:      c.sent,
		PerSecond: n / (c.ended - c.start).Seconds(),
		P50:       float64(samples[len(samples)/2]),
		P99:       float64(samples[len(samples)*99/100]),
		ServerCPU: float64(c.cpuAtEnd[0]-c.cpuAtStart[0]) / n,
		ClientCPU: float64(c.cpuAtEnd[1]-c.cpuAtStart[1]) / n,
	}, nil
}

// record records the latency of a window of requests, if the window must be measured. It
// reports whether the client must send more requests.
func (c *loadClient) record(sent, now time.Duration, measure bool) (more bool) {
	switch {
	case c.recording:
		if measure {
			c.samples[c.recorded%maxSamples] = uint32(min(now-sent, math.MaxUint32))
			c.recorded++
		}
		c.answered += c.Window
		if !c.isOver(now - c.start) {
			return true
		}
		if c.ended == 0 {
			c.ended, c.cpuAtEnd = now, c.processorTimes()
		}
		return false
	case now >= c.Warmup:
		c.recording, c.start, c.cpuAtStart = true, now, c.processorTimes()
	}
	return true
}

// isOver reports whether the load has been measured for long enough. A load beside another load
// has few samples, because only overlapping requests are measured. So isOver waits for 100 samples,
// but not for more than ten times the duration.
func (c *loadClient) isOver(elapsed time.Duration) bool {
	if c.stop != nil {
		return c.stop.Load()
	}
	return elapsed >= c.Duration && (c.overlap == nil || c.recorded >= 100 || elapsed >= 10*c.Duration)
}

// processorTimes returns the processor time of the server and of the client. The kernel counts
// this time in nanoseconds, and includes threads that have ended.
func (c *loadClient) processorTimes() (times [2]time.Duration) {
	for i, clock := range []int{processClock(c.ServerPID), unix.CLOCK_PROCESS_CPUTIME_ID} {
		var t unix.Timespec
		unix.ClockGettime(int32(clock), &t)
		times[i] = time.Duration(t.Nano())
	}
	return times
}

// processClock returns the clock of a process's processor time (clock_getcpuclockid(3)).
func processClock(pid int) int { return ^pid<<3 | 2 }

func (c *loadClient) runOneConnection() error {
	var messages, replies [][]byte
	for i, request := range c.Requests {
		messages = append(messages, bytes.Repeat(request, c.Window))
		replies = append(replies, bytes.Repeat(c.Replies[i], c.Window))
	}
	address := newAddress(c.Sockets[0])
	fd, err := address.connect()
	if err != nil {
		return err
	}
	for sent := time.Since(c.epoch); ; {
		if c.Pause > 0 {
			pause := unix.NsecToTimespec(int64(c.Pause))
			unix.Nanosleep(&pause, nil)
			sent = time.Since(c.epoch)
		}
		if c.Fresh && c.sent > 0 {
			if fd, err = address.connect(); err != nil {
				return err
			}
		}
		turn := c.sent / c.Window % len(messages)
		c.sent += c.Window
		measure := true
		if c.overlap == nil {
			err = c.exchange(fd, messages[turn], replies[turn])
		} else {
			before := c.overlap.Load()
			err = c.exchange(fd, messages[turn], replies[turn])
			measure = before%2 == 1 || c.overlap.Load() != before
		}
		if err != nil {
			return err
		}
		if c.Fresh {
			unix.Close(fd)
		}
		now := time.Since(c.epoch)
		if !c.record(sent, now, measure) {
			return nil
		}
		sent = now
	}
}

// exchange sends a message and reads the reply.
func (c *loadClient) exchange(fd int, message, reply []byte) error {
	if c.busy != nil {
		c.busy.Add(1)
		defer c.busy.Add(1)
	}
	if err := write(fd, message); err != nil {
		return err
	}
	if c.PushCount > 0 {
		return c.readPushReply(fd)
	}
	return c.readReply(fd, reply)
}

// runConnections keeps one request in flight on each connection.
func (c *loadClient) runConnections() error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	type connection struct {
		fd    int
		reply []byte
		got   int // number of received bytes of the reply
		sent  time.Duration
	}
	connections := make([]connection, len(c.Sockets))
	for i, socket := range c.Sockets {
		turn := i % len(c.Requests)
		fd, err := newAddress(socket).connect()
		if err == nil {
			err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)})
		}
		if err == nil {
			err = write(fd, c.Requests[turn])
		}
		if err != nil {
			return err
		}
		connections[i] = connection{fd: fd, reply: c.Replies[turn], sent: time.Since(c.epoch)}
		c.sent++
	}
	events := make([]unix.EpollEvent, len(connections))
	for inFlight := len(connections); inFlight > 0; {
		ready, errno := call(unix.SYS_EPOLL_PWAIT, epoll, unsafe.Pointer(&events[0]), len(events), -1)
		if errno != 0 {
			return errno
		}
		for _, event := range events[:ready] {
			conn := &connections[event.Fd]
			n, errno := call(unix.SYS_READ, conn.fd, unsafe.Pointer(&c.buffer[0]), len(c.buffer), 0)
			if errno != 0 {
				return errno
			}
			if n == 0 || conn.got+n > len(conn.reply) || !bytes.Equal(c.buffer[:n], conn.reply[conn.got:conn.got+n]) {
				return wrongReply(c.buffer[:n])
			}
			if conn.got += n; conn.got < len(conn.reply) {
				continue
			}
			now := time.Since(c.epoch)
			if !c.record(conn.sent, now, true) {
				inFlight--
				continue
			}
			if err := write(conn.fd, c.Requests[int(event.Fd)%len(c.Requests)]); err != nil {
				return err
			}
			c.sent++
			conn.got, conn.sent = 0, now
		}
	}
	return nil
}

func (c *loadClient) readReply(fd int, reply []byte) error {
	for len(reply) > 0 {
		n, errno := call(unix.SYS_READ, fd, unsafe.Pointer(&c.buffer[0]), len(c.buffer), 0)
		if errno != 0 {
			return errno
		}
		if n == 0 || n > len(reply) || !bytes.Equal(c.buffer[:n], reply[:n]) {
			return wrongReply(c.buffer[:n])
		}
		reply = reply[n:]
	}
	return nil
}

// readPushReply checks that the reply confirms the push, and that its generation follows the
// generation of the previous push.
func (c *loadClient) readPushReply(fd int) error {
	n, errno := call(unix.SYS_READ, fd, unsafe.Pointer(&c.buffer[0]), len(c.buffer), 0)
	if errno != 0 {
		return errno
	}
	reply := c.buffer[:n]
	before, after, found := bytes.Cut(reply, fmt.Appendf(nil, `,"secret_count":%d,"generation":`, c.PushCount))
	number, found2 := bytes.CutSuffix(after, []byte("}\n"))
	generation, err := strconv.Atoi(string(number))
	if !found || !found2 || err != nil || !bytes.HasPrefix(before, []byte(`{"ok":true,`)) ||
		c.generation > 0 && generation != c.generation+1 {
		return wrongReply(reply)
	}
	c.generation = generation
	return nil
}

func wrongReply(reply []byte) error {
	if len(reply) == 0 {
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("the server sent a wrong reply: %.200q", reply)
}

func write(fd int, message []byte) error {
	for len(message) > 0 {
		n, errno := call(unix.SYS_WRITE, fd, unsafe.Pointer(&message[0]), len(message), 0)
		if errno != 0 {
			return errno
		}
		message = message[n:]
	}
	return nil
}

// An address is the address of a Unix socket in the form that the kernel reads.
type address struct {
	raw    unix.RawSockaddrUnix
	length int
}

func newAddress(path string) *address {
	a := &address{raw: unix.RawSockaddrUnix{Family: unix.AF_UNIX}, length: 2 + len(path) + 1}
	copy((*[len(a.raw.Path)]byte)(unsafe.Pointer(&a.raw.Path))[:], path)
	return a
}

func (a *address) connect() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if _, errno := call(unix.SYS_CONNECT, fd, unsafe.Pointer(&a.raw), a.length, 0); errno != 0 {
		return -1, errno
	}
	return fd, nil
}

// call calls the kernel without telling the Go scheduler, so the client costs as little as a
// client in C.
func call(number uintptr, fd int, p unsafe.Pointer, length, last int) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(number, uintptr(fd), uintptr(p), uintptr(length), uintptr(last), 0, 0)
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}
