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
	socket  string
	get     exchange // of one secret
	getMany exchange // of ten secrets

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

// start starts the server and waits until it accepts connections.
func (c *contender) start(cpu int, args ...string) (err error) {
	if c.process, err = startProcess(cpu, args...); err != nil {
		return err
	}
	return c.process.waitFor(c.dial)
}

// dial checks that the server accepts connections.
func (c *contender) dial() error {
	conn, err := net.Dial("unix", c.socket)
	if err == nil {
		conn.Close()
	}
	return err
}

// ask sends one request to a socket and checks the reply.
func ask(socket string, x exchange) error {
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
