package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// answerAll starts a server on a Unix socket. On each connection, the server sends the next of
// the replies whenever it receives something. After the last reply, it begins with the first again.
func answerAll(t *testing.T, replies ...string) (socket string) {
	socket = filepath.Join(t.TempDir(), "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() { // this goroutine ends when the listener is closed
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { // this goroutine ends when the client closes the connection
				defer c.Close()
				buffer := make([]byte, 4096)
				for i := 0; ; i++ {
					if _, err := c.Read(buffer); err != nil {
						return
					}
					c.Write([]byte(replies[i%len(replies)]))
				}
			}()
		}
	}()
	return socket
}

// measureGood measures the load l on the server at socket. It sends the request "get", and only the
// reply "good" is correct. For pushes, only the confirmation of a push is correct.
func measureGood(t *testing.T, socket string, connections int, l load) (result, error) {
	for range max(connections, 1) {
		l.Sockets = append(l.Sockets, socket)
	}
	l.Requests, l.Replies = [][]byte{[]byte("get\n")}, [][]byte{[]byte("good\n")}
	l.CPU, l.Window, l.Duration = -1, max(l.Window, 1), 5*time.Millisecond
	return (&bench{self: testProgram(t)}).measure(l)
}

func TestClientRefusesWrongReplies(t *testing.T) {
	for _, test := range []struct {
		name        string
		replies     []string
		connections int
		load        load
	}{
		{"another value", []string{"good\n", "gooD\n"}, 1, load{}},
		{"a longer reply", []string{"good\n", "good\n\n"}, 1, load{}},
		{"a reply too many", []string{"good\n", "good\ngood\n"}, 1, load{}},
		{"another value on one of several connections", []string{"good\n", "gooD\n"}, 2, load{}},
		{"one wrong reply of a window", []string{"good\ngooD\n"}, 1, load{Window: 2}},
		{"a push that was refused", []string{`{"ok":false,"secret_count":3,"generation":1}` + "\n"}, 1, load{PushCount: 3}},
		{"a push of fewer secrets", []string{`{"ok":true,"secret_count":2,"generation":1}` + "\n"}, 1, load{PushCount: 3}},
		{"a push that changed nothing", []string{`{"ok":true,"secret_count":3,"generation":1}` + "\n"}, 1, load{PushCount: 3}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := measureGood(t, answerAll(t, test.replies...), test.connections, test.load)
			if err == nil || !strings.Contains(err.Error(), "wrong reply") {
				t.Errorf("the client returned %v, want an error about a wrong reply", err)
			}
		})
	}
}

func TestClientMeasuresEachRequest(t *testing.T) {
	socket := answerAll(t, "good\n")
	for _, test := range []struct {
		name        string
		connections int
		load        load
	}{{"one connection", 1, load{}}, {"several connections", 3, load{}}, {"new connections", 1, load{Fresh: true}}} {
		r, err := measureGood(t, socket, test.connections, test.load)
		if err != nil || r.Sent == 0 || r.PerSecond == 0 || r.P50 == 0 || r.P99 < r.P50 {
			t.Errorf("%s: the client measured %+v, %v", test.name, r, err)
		}
	}
}
