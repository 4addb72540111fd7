package main

import (
	"net"
)

// serveBaseline is the Go server with which keyhatchd is compared. Each connection has its own
// goroutine, which calls Read and Write. On the socket echo, the server sends back everything
// that it receives. On the socket sink, it drops everything that it receives, and sends a short
// line when it has received the end of a line.
func serveBaseline(echo, sink string) error {
	ended := make(chan error, 2)
	go func() {
		ended <- serve(echo, func(c net.Conn, received []byte) error {
			_, err := c.Write(received)
			return err
		})
	}()
	go func() {
		ended <- serve(sink, func(c net.Conn, received []byte) (err error) {
			if received[len(received)-1] == '\n' {
				_, err = c.Write(sinkReply)
			}
			return err
		})
	}()
	return <-ended
}

var sinkReply = []byte(`{"ok":true}` + "\n")

func serve(socket string, answer func(net.Conn, []byte) error) error {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	for {
		c, err := listener.AcceptUnix()
		if err != nil {
			return err
		}
		go func() { // this goroutine ends when the client closes the connection
			defer c.Close()
			buffer := make([]byte, 64<<10)
			for {
				n, err := c.Read(buffer)
				if err == nil {
					err = answer(c, buffer[:n])
				}
				if err != nil {
					return
				}
			}
		}()
	}
}
