package main

import (
	"bytes"
	"fmt"
	"net"
	"time"
)

// The names of the contenders in the results.
const (
	goEcho    = "Go echo"
	goSink    = "Go sink"
	cEcho     = "C echo"
	redis     = "redis"
	keyhatchd = "keyhatchd"
)

// A contender is a running server that is measured.
type contender struct {
	name    string
	process *process
	ready   time.Duration // from the start to the first answer
	socket  string
	get     []exchange // one get of each secret
	getMany []exchange // one get-many of all secrets

	pushSocket string
	// encodePush encodes a push of secrets with these names and values.
	encodePush func(names, values []string) []byte
	pushReply  []byte // the only correct reply to a push, or nil if the replies differ
}

// An exchange is a request and the only correct reply to it.
type exchange struct{ request, reply []byte }

// secrets returns the names and values of the secrets that the benchmark gets. Their length
// makes a get request exactly as long as its reply, so that an echo transfers the same bytes.
func secrets() (names, values []string) {
	for i := range 10 {
		names = append(names, secretName(i))
		values = append(values, fmt.Sprintf("c2VjcmV0LXNlY3JldC1zZWNyZXQtc2%02d", i))
	}
	return names, values
}

func secretName(i int) string { return fmt.Sprintf("PAYMENTS_STAGING_DATABASE_KEY_%02d", i) }

// newLoad returns a load of exchanges on one connection.
func newLoad(socket string, cpu int, exchanges []exchange) load {
	l := load{Sockets: []string{socket}, Window: 1, CPU: cpu}
	for _, x := range exchanges {
		l.Requests, l.Replies = append(l.Requests, x.request), append(l.Replies, x.reply)
	}
	return l
}

// start starts the server and waits until it answers a first request.
func (c *contender) start(cpu int, first exchange, args ...string) (err error) {
	began := time.Now()
	if c.process, err = startProcess(cpu, args...); err != nil {
		return err
	}
	err = c.process.waitFor(func() error { return roundTrip(c.socket, first) })
	c.ready = time.Since(began)
	return err
}

// roundTrip sends one request to a socket and checks the reply.
func roundTrip(socket string, x exchange) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write(x.request); err != nil {
		return err
	}
	got := make([]byte, len(x.reply))
	for n := 0; n < len(got); {
		more, err := conn.Read(got[n:])
		if err != nil {
			return err
		}
		n += more
	}
	if !bytes.Equal(got, x.reply) {
		return wrongReply(got)
	}
	return nil
}
