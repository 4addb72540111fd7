package broker_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestSocketReplacedBetweenTwoBrokers replaces a project's socket file while no broker
// runs. The next broker must notice that clients cannot reach its inherited listener
// through the new file. The broker must then create the socket again.
func TestSocketReplacedBetweenTwoBrokers(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	m.register("api", "A")
	s.Shutdown(context.Background())
	path := m.projectSocket("api")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	stop := listenInOtherProcess(t, path)
	defer stop()
	s = m.start()
	m.push(tripwire)
	if answer := connect(t, path).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
		t.Errorf("after the socket file was replaced, the answer to get is %s", answer)
	}
	// A restart must not replace an unchanged socket, because new connections can be waiting
	// in the backlog of the socket.
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Shutdown(context.Background())
	m.start()
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the restart replaced an unchanged socket: %v", err)
	}
}

// listenInOtherProcess runs TestListener in another process, which listens at path. It
// needs another process, because the broker recognizes its own listener by the process
// that created the listener.
func listenInOtherProcess(t *testing.T, path string) (stop func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestListener$", "-test.v")
	cmd.Env = append(os.Environ(), "KEYHATCH_TEST_LISTEN="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "listening" {
	}
	return func() { in.Close(); cmd.Wait() }
}

// TestListener is not a test. It is the code that listenInOtherProcess runs in another
// process.
func TestListener(t *testing.T) {
	path := os.Getenv("KEYHATCH_TEST_LISTEN")
	if path == "" {
		return
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	fmt.Println("listening")
	io.Copy(io.Discard, os.Stdin)
	l.Close()
}
