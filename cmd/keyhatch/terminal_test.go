package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TestRunWatchInInteractiveShell uses keyhatch run --watch in an interactive shell. The
// command must get the typed text and the signals of keys such as Ctrl-C. The user must be
// able to stop and continue the command. After the command ends, the shell must control the
// terminal again.
func TestRunWatchInInteractiveShell(t *testing.T) {
	testenv.RequireTool(t, "bash")
	socket := serveProject(t, "schema_version: 1\nproject: api\nsecrets: {A: }\n", schema.PushRequest{
		Secrets: map[schema.SecretName]schema.Value{"A": {Text: "TRIPWIRE"}},
	})
	term := newTerminal(t, socket)
	term.typeText("keyhatch run --watch -- sh -c 'echo $A begun; cat; echo ended'\n")
	term.expect("TRIPWIRE begun\r\n")
	term.typeText("one\n")
	term.expect("one\r\none\r\n") // the terminal's echo of the typed text, then the output of cat
	term.typeText("\x1a")
	term.expect("Stopped")
	term.typeUntil("echo she\"\"ll\n", "shell\r\n")
	term.typeUntil("set -b; bg\n", "Stopped") // a read from the terminal stops cat in the background; set -b makes bash report the stop at once
	term.typeUntil("echo bash is ba\"\"ck\n", "back\r\n")
	term.typeText("fg\n")
	term.typeUntil("two\n", "two\r\ntwo\r\n")
	term.typeText("\x03")
	term.expect("^C")
	term.expect("$ ")
	term.typeText("echo code=$?\n")
	term.expect("code=130")
	// After keyhatch run, the next command in the same script can read from the terminal.
	term.typeText("sh -c 'keyhatch run --watch -- true; echo ready; read line; echo read:$line'\n")
	term.expect("\r\nready")
	term.typeText("three\n")
	term.expect("read:three")
}

// TestRunWatchAsSessionLeader runs keyhatch without a parent shell, as docker run -it
// does. Ctrl-Z must not stop the command forever, because no shell can continue the command.
func TestRunWatchAsSessionLeader(t *testing.T) {
	testenv.RequireTool(t, "bash")
	term := newTerminal(t, serveProject(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}}))
	term.typeText("exec keyhatch run --watch -- sh -c 'echo beg\"\"un; while read line; do echo read:$line; done'\n")
	term.expect("begun\r\n")
	term.typeText("\x1a")
	term.expect("^Z")
	term.typeUntil("one\n", "read:one\r\n")
}

// TestRunWatchInPipeline runs keyhatch run --watch in a pipeline. The other program of the
// pipeline reads keys from the terminal, as less does. Ctrl-C must reach both programs, and
// the command must get SIGINT only once.
func TestRunWatchInPipeline(t *testing.T) {
	testenv.RequireTool(t, "bash")
	socket := serveProject(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}})
	term := newTerminal(t, socket)
	term.typeText("set -o pipefail\n")
	term.expect("$ ")
	term.typeText(`keyhatch run --watch -- bash -c 'trap "echo int" INT; trap "echo continued" CONT; trap "exit 5" USR1; echo $$ >pid; echo begun; while :; do sleep 0.02; done' | sh -c 'trap "" INT; read line; echo reader:$line; read key </dev/tty; echo key:$key; exec cat'` + "\n")
	term.expect("reader:begun\r\n")
	term.typeText("k\n")
	term.expect("key:k\r\n")
	term.typeText("\x03")
	term.expect("int\r\n")
	term.typeText("\x1a")
	term.expect("Stopped")
	term.typeText("fg\n")
	term.expect("continued\r\n") // bash gives the terminal to the job before it sends SIGCONT
	term.typeText("\x03")
	term.expect("int\r\n")
	syscall.Kill(term.readPid("pid"), syscall.SIGUSR1)
	term.expect("$ ")
	if bytes.Contains(term.seen, []byte("int\r\nint\r\n")) {
		t.Errorf("Ctrl-C sent SIGINT twice: %q", term.seen)
	}
	term.typeText("echo co\"\"de=$?\n")
	term.expect("code=5\r\n")
}

// TestRunWatchWithPager scrolls and quits less, which changes the settings of the terminal.
func TestRunWatchWithPager(t *testing.T) {
	testenv.RequireTool(t, "bash")
	testenv.RequireTool(t, "less")
	term := newTerminal(t, serveProject(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}}))
	term.typeText("keyhatch run --watch -- seq 5000 | TERM=vt100 LESS= less\n")
	term.expect("20")
	term.typeText("G")
	term.expect("5000")
	term.typeText("q")
	term.typeText("echo sh\"\"ell\n")
	term.expect("shell\r\n")
}

// TestRunWatchReturnsShellExitCodes ends the command with keys and with signals to keyhatch.
// The shell must see the exit codes of these signals.
func TestRunWatchReturnsShellExitCodes(t *testing.T) {
	testenv.RequireTool(t, "bash")
	term := newTerminal(t, serveProject(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}}))
	for _, c := range []struct {
		end  func()
		code string
	}{
		{func() { term.typeText("\x03") }, "130"},
		{func() { term.typeText("\x1c") }, "131"},
		{func() { syscall.Kill(term.readPid("keyhatch"), syscall.SIGTERM) }, "143"},
		{func() { syscall.Kill(term.readPid("keyhatch"), syscall.SIGHUP) }, "129"},
		{func() { syscall.Kill(term.readPid("command"), syscall.SIGTERM) }, "143"},
	} {
		term.typeText("ulimit -c 0; keyhatch run --watch -- sh -c 'echo $PPID >keyhatch; echo $$ >command; sleep 1000 & echo $! >worker; echo beg\"\"un; wait'\n")
		term.expect("begun\r\n")
		worker := term.readPid("worker")
		c.end()
		term.expect("$ ")
		term.typeText("echo co\"\"de=$?\n")
		term.expect("code=" + c.code + "\r\n")
		term.expect("$ ")
		if err := syscall.Kill(worker, 0); err != syscall.ESRCH {
			t.Errorf("exit code %s: the background process of the command still exists: %v", c.code, err)
		}
	}
}

// TestInterruptedRunWatchEndsScript presses Ctrl-C in a script. bash continues with the next
// command of a script unless SIGINT has ended the command that was running.
func TestInterruptedRunWatchEndsScript(t *testing.T) {
	testenv.RequireTool(t, "bash")
	term := newTerminal(t, serveProject(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}}))
	term.typeText(`bash -c 'keyhatch run --watch -- sh -c "echo beg\"\"un; exec sleep 1000"; echo conti""nued'` + "\n")
	term.expect("begun\r\n")
	term.typeText("\x03")
	term.expect("$ ")
	term.typeText("echo co\"\"de=$?\n")
	term.expect("code=130\r\n")
	if bytes.Contains(term.seen, []byte("continued")) {
		t.Errorf("the script continued: %q", term.seen)
	}
}

// TestClosedTerminalEndsRunWatch closes the terminal. keyhatch, the command, and the
// descendants of the command must end.
func TestClosedTerminalEndsRunWatch(t *testing.T) {
	testenv.RequireTool(t, "bash")
	socket := serveProject(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}})
	for _, prefix := range []string{"", "exec "} { // exec makes keyhatch the session leader
		term := newTerminal(t, socket)
		term.typeText(prefix + "keyhatch run --watch -- sh -c 'echo $PPID >keyhatch; echo $$ >command; sleep 1000 & echo $! >worker; echo beg\"\"un; wait'\n")
		term.expect("begun\r\n")
		var pids []int
		for _, name := range []string{"keyhatch", "command", "worker"} {
			pids = append(pids, term.readPid(name))
		}
		term.ptmx.Close()
		term.shell.Wait()
		for _, pid := range pids {
			waitUntilEnded(t, pid)
		}
	}
}

// TestRestartGivesTerminalToNewCommand restarts an interactive shell. An interactive shell
// makes its own process group the foreground group of the terminal and ignores SIGTERM.
func TestRestartGivesTerminalToNewCommand(t *testing.T) {
	testenv.RequireTool(t, "bash")
	t.Setenv("GRACE", "100ms")
	host := startBroker(t, "schema_version: 1\nproject: api\nsecrets: {A: }\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{"A": {Text: "one"}}})
	term := newTerminal(t, host.socket)
	term.typeText("PS1='inner$A> ' keyhatch run --watch -- bash --norc --noprofile -i\n")
	term.expect("innerone> ")
	host.push(t, schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{"A": {Text: "two"}}})
	term.expect("innertwo> ")
	term.typeText("echo in\"\"side\n")
	term.expect("inside\r\n")
	term.typeText("exit 4\n")
	term.expect("$ ")
	term.typeText("echo co\"\"de=$?\n")
	term.expect("code=4\r\n")
}

// waitUntilEnded waits until a process has ended. A zombie has ended.
func waitUntilEnded(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the process still exists: %s", stat)
		}
	}
}

// A terminal is the master side of a pseudoterminal in which an interactive shell runs.
type terminal struct {
	t      *testing.T
	ptmx   *os.File
	shell  *exec.Cmd
	dir    string // the current directory of the shell
	seen   []byte // all output
	unread []byte // output that is not yet compared with an expected text
}

func newTerminal(t *testing.T, socket string) *terminal {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(ptmx.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	// The method Fd sets the file descriptor to blocking mode, in which read deadlines do
	// not work.
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	pts, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pts.Close()
	c := exec.Command("bash", "--norc", "--noprofile", "-i")
	c.Env = append(os.Environ(), "KEYHATCH_SOCKET="+socket, "PS1=$ ", "TERM=dumb", "GORACE=atexit_sleep_ms=0")
	c.Dir = t.TempDir()
	c.Stdin, c.Stdout, c.Stderr = pts, pts, pts
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ptmx.Close() // sends SIGHUP to the remaining processes
		c.Process.Kill()
		c.Wait()
	})
	term := &terminal{t: t, ptmx: ptmx, shell: c, dir: c.Dir}
	term.expect("$ ")
	return term
}

func (term *terminal) typeText(text string) {
	term.t.Helper()
	if _, err := term.ptmx.WriteString(text); err != nil {
		term.t.Fatal(err)
	}
}

// readPid reads a process ID from a file in the shell's directory.
func (term *terminal) readPid(file string) int {
	term.t.Helper()
	text, err := os.ReadFile(filepath.Join(term.dir, file))
	if err != nil {
		term.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		term.t.Fatal(err)
	}
	return pid
}

// typeUntil types a line repeatedly until text appears in the output. A typed line can get
// lost while the foreground group changes, because the shell then changes the terminal's
// settings.
func (term *terminal) typeUntil(line, text string) {
	term.t.Helper()
	for range 50 {
		term.typeText(line)
		if term.waitFor(text, 300*time.Millisecond) == nil {
			return
		}
	}
	term.t.Fatalf("after typing %q: no %q in the output %q", line, text, term.unread)
}

// expect waits for text in the output. It discards the output up to the end of text.
func (term *terminal) expect(text string) {
	term.t.Helper()
	if err := term.waitFor(text, 15*time.Second); err != nil {
		term.t.Fatalf("waiting for %q: %v; the output is %q", text, err, term.unread)
	}
}

func (term *terminal) waitFor(text string, timeout time.Duration) error {
	term.ptmx.SetReadDeadline(time.Now().Add(timeout))
	for {
		if i := bytes.Index(term.unread, []byte(text)); i >= 0 {
			term.unread = term.unread[i+len(text):]
			return nil
		}
		b := make([]byte, 4096)
		n, err := term.ptmx.Read(b)
		term.seen, term.unread = append(term.seen, b[:n]...), append(term.unread, b[:n]...)
		if err != nil {
			return err
		}
	}
}
