package systemd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A load is a process in the machine that repeatedly gets a secret.
type load struct {
	t     *testing.T
	stdin io.Closer
	lines *bufio.Scanner
	cmd   *exec.Cmd
}

// startLoad starts a load. Like a container, the load has its own mount namespace, in which
// source is mounted at target. startLoad returns after the first get of the load.
func startLoad(m *machine, source, target, socket string) *load {
	m.t.Helper()
	script := fmt.Sprintf("mount --bind %s %s\nexec e2e load %s", source, target, socket)
	l := &load{t: m.t, cmd: exec.Command("docker", "exec", "--interactive", m.id, "unshare", "--mount", "--propagation=private", "sh", "-euc", script)}
	l.cmd.Env = m.engine.Env()
	stdin, err := l.cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	stdout, err := l.cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	l.stdin, l.lines = stdin, bufio.NewScanner(stdout)
	var stderr strings.Builder
	l.cmd.Stderr = &stderr
	if err := l.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { stdin.Close(); l.cmd.Wait() })
	if !l.lines.Scan() {
		stdin.Close()
		l.cmd.Wait()
		m.t.Fatalf("the load did not start: %s", stderr.String())
	}
	return l
}

// stopAndCheck stops the load, and checks that there was at least one get and that no get failed.
func (l *load) stopAndCheck(name string) {
	l.t.Helper()
	l.stdin.Close()
	var r loadResult
	if !l.lines.Scan() {
		l.t.Fatalf("%s: the load printed no result", name)
	}
	if err := json.Unmarshal(l.lines.Bytes(), &r); err != nil {
		l.t.Fatal(err)
	}
	l.t.Logf("%s: %d gets, %d failed; the slowest took %v", name, r.Gets, r.Failed, r.Slowest.Round(time.Millisecond))
	if r.Failed > 0 || r.Gets == 0 {
		l.t.Errorf("%s: %d of %d gets failed, first error: %s", name, r.Failed, r.Gets, r.FirstError)
	}
}
