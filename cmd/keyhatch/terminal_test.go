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
	term.Type("keyhatch run --watch -- sh -c 'echo $A begun; cat; echo ended'\n")
	term.Expect("TRIPWIRE begun\r\n")
	term.Type("one\n")
	term.Expect("one\r\none\r\n") // the terminal's echo of the typed text, then the output of cat
	term.Type("\x1a")
	term.Expect("Stopped")
	term.TypeUntil("echo she\"\"ll\n", "shell\r\n")
	// The kernel stops cat, because cat reads from the terminal while it runs in the background.
	// With set -b, bash reports this at once.
	term.TypeUntil("set -b; bg\n", "Stopped")
	term.TypeUntil("echo bash is ba\"\"ck\n", "back\r\n")
	term.Type("fg\n")
	term.TypeUntil("two\n", "two\r\ntwo\r\n")
	term.Type("\x03")
	term.Expect("^C")
	term.Expect("$ ")
	term.Type("echo code=$?\n")
	term.Expect("code=130")
	// After keyhatch run, the next command in the same script can read from the terminal.
	term.Type("sh -c 'keyhatch run --watch -- true; echo ready; read line; echo read:$line'\n")
	term.Expect("\r\nready")
	term.Type("three\n")
	term.Expect("read:three")
}

// TestRunWatchAsSessionLeader runs keyhatch without a parent shell, as docker run -it
// does. Ctrl-Z must not stop the command forever, because no shell can continue the command.
func TestRunWatchAsSessionLeader(t *testing.T) {
	testenv.RequireTool(t, "bash")
	term := newTerminal(t, serveProject(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}}))
	term.Type("exec keyhatch run --watch -- sh -c 'echo beg\"\"un; while read line; do echo read:$line; done'\n")
	term.Expect("begun\r\n")
	term.Type("\x1a")
	term.Expect("^Z")
	term.TypeUntil("one\n", "read:one\r\n")
}

// TestRunWatchInPipeline runs keyhatch run --watch in a pipeline with a second program. The second
// program reads keys from the terminal, as less does. Ctrl-C must reach both programs, and the
// command must get SIGINT only once.
func TestRunWatchInPipeline(t *testing.T) {
	testenv.RequireTool(t, "bash")
	socket := serveProject(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}})
	term := newTerminal(t, socket)
	term.Type("set -o pipefail\n")
	term.Expect("$ ")
	term.Type(`keyhatch run --watch -- bash -c 'trap "echo int" INT; trap "echo continued" CONT; trap "exit 5" USR1; echo $$ >pid; echo begun; while :; do sleep 0.02; done' | sh -c 'trap "" INT; read line; echo reader:$line; read key </dev/tty; echo key:$key; exec cat'` + "\n")
	term.Expect("reader:begun\r\n")
	term.Type("k\n")
	term.Expect("key:k\r\n")
	term.Type("\x03")
	term.Expect("int\r\n")
	term.Type("\x1a")
	term.Expect("Stopped")
	term.Type("fg\n")
	term.Expect("continued\r\n") // bash gives the terminal to the job before bash sends SIGCONT, so the job gets the next Ctrl-C
	term.Type("\x03")
	term.Expect("int\r\n")
	syscall.Kill(term.readPid("pid"), syscall.SIGUSR1)
	term.Expect("$ ")
	if bytes.Contains(term.Output(), []byte("int\r\nint\r\n")) {
		t.Errorf("Ctrl-C sent SIGINT twice: %q", term.Output())
	}
	term.Type("echo co\"\"de=$?\n")
	term.Expect("code=5\r\n")
}

// TestRunWatchWithPager pipes the output of keyhatch run --watch into less, which changes
// the settings of the terminal. Scrolling and quitting must work, and the shell must work
// afterwards.
func TestRunWatchWithPager(t *testing.T) {
	testenv.RequireTool(t, "bash")
	testenv.RequireTool(t, "less")
	term := newTerminal(t, serveProject(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}}))
	term.Type("keyhatch run --watch -- seq 5000 | TERM=vt100 LESS= less\n")
	term.Expect("20")
	term.Type("G")
	term.Expect("5000")
	term.Type("q")
	term.Type("echo sh\"\"ell\n")
	term.Expect("shell\r\n")
}

// TestRunWatchReturnsShellExitCodes ends the command with keys, with signals to keyhatch, and with
// a signal to the command. The shell must report 128 plus the signal's number as the exit code, and
// the background process of the command must end.
func TestRunWatchReturnsShellExitCodes(t *testing.T) {
	testenv.RequireTool(t, "bash")
	term := newTerminal(t, serveProject(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}}))
	for _, c := range []struct {
		end  func()
		code string
	}{
		{func() { term.Type("\x03") }, "130"},
		{func() { term.Type("\x1c") }, "131"},
		{func() { syscall.Kill(term.readPid("keyhatch"), syscall.SIGTERM) }, "143"},
		{func() { syscall.Kill(term.readPid("keyhatch"), syscall.SIGHUP) }, "129"},
		{func() { syscall.Kill(term.readPid("command"), syscall.SIGTERM) }, "143"},
	} {
		term.Type("ulimit -c 0; keyhatch run --watch -- sh -c 'echo $PPID >keyhatch; echo $$ >command; sleep 1000 & echo $! >worker; echo beg\"\"un; wait'\n")
		term.Expect("begun\r\n")
		worker := term.readPid("worker")
		c.end()
		term.Expect("$ ")
		term.Type("echo co\"\"de=$?\n")
		term.Expect("code=" + c.code + "\r\n")
		term.Expect("$ ")
		if err := syscall.Kill(worker, 0); err != syscall.ESRCH {
			t.Errorf("exit code %s: the background process of the command still exists: %v", c.code, err)
		}
	}
}

// TestInterruptedRunWatchEndsScript presses Ctrl-C in a script that runs keyhatch run
// --watch. The script must end. After Ctrl-C, bash ends a script only if SIGINT ended the
// running command. If the command exits instead, bash continues with the next command of
// the script.
func TestInterruptedRunWatchEndsScript(t *testing.T) {
	testenv.RequireTool(t, "bash")
	term := newTerminal(t, serveProject(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}}))
	term.Type(`bash -c 'keyhatch run --watch -- sh -c "echo beg\"\"un; exec sleep 1000"; echo conti""nued'` + "\n")
	term.Expect("begun\r\n")
	term.Type("\x03")
	term.Expect("$ ")
	term.Type("echo co\"\"de=$?\n")
	term.Expect("code=130\r\n")
	if bytes.Contains(term.Output(), []byte("continued")) {
		t.Errorf("the script continued: %q", term.Output())
	}
}

// TestClosedTerminalEndsRunWatch closes the terminal. keyhatch, the command, and the
// descendants of the command must end.
func TestClosedTerminalEndsRunWatch(t *testing.T) {
	testenv.RequireTool(t, "bash")
	socket := serveProject(t, "schema_version: 1\nproject: api\nsecrets: {}\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}})
	for _, prefix := range []string{"", "exec "} { // exec makes keyhatch the session leader
		term := newTerminal(t, socket)
		term.Type(prefix + "keyhatch run --watch -- sh -c 'echo $PPID >keyhatch; echo $$ >command; sleep 1000 & echo $! >worker; echo beg\"\"un; wait'\n")
		term.Expect("begun\r\n")
		var pids []int
		for _, name := range []string{"keyhatch", "command", "worker"} {
			pids = append(pids, term.readPid(name))
		}
		term.HangUp()
		term.Wait()
		for _, pid := range pids {
			waitUntilEnded(t, pid)
		}
	}
}

// TestRestartGivesTerminalToNewCommand restarts an interactive shell. An interactive shell
// makes its own process group the foreground group of the terminal and ignores SIGTERM.
// After the restart, the new shell must be able to use the terminal.
func TestRestartGivesTerminalToNewCommand(t *testing.T) {
	testenv.RequireTool(t, "bash")
	t.Setenv("GRACE", "100ms")
	host := startBroker(t, "schema_version: 1\nproject: api\nsecrets: {A: }\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{"A": {Text: "one"}}})
	term := newTerminal(t, host.socket)
	term.Type("PS1='inner$A> ' keyhatch run --watch -- bash --norc --noprofile -i\n")
	term.Expect("innerone> ")
	host.push(t, schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{"A": {Text: "two"}}})
	term.Expect("innertwo> ")
	term.Type("echo in\"\"side\n")
	term.Expect("inside\r\n")
	term.Type("exit 4\n")
	term.Expect("$ ")
	term.Type("echo co\"\"de=$?\n")
	term.Expect("code=4\r\n")
}

// TestRunWatchRestoresTerminalSettings restarts and kills a command that has put the terminal
// into raw mode. The new command and the shell must get the earlier settings.
func TestRunWatchRestoresTerminalSettings(t *testing.T) {
	testenv.RequireTool(t, "bash")
	t.Setenv("GRACE", "100ms")
	host := startBroker(t, "schema_version: 1\nproject: api\nsecrets: {A: }\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{"A": {Text: "one"}}})
	term := newTerminal(t, host.socket)
	// The inner bash is an interactive shell and ignores SIGTERM, so keyhatch must end it with
	// SIGKILL.
	for _, command := range []string{"exec sleep 1000", "exec bash --norc --noprofile -i"} {
		term.Type(`keyhatch run --watch -- sh -c 'echo $$ >command; stty -a >settings; stty raw -echo; echo $A beg""un; ` + command + `'; code=$?; stty -a >after; echo co""de=$code` + "\n")
		term.Expect("one begun")
		before := term.readFile("settings")
		host.push(t, schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{"A": {Text: "two"}}})
		term.Expect("two begun")
		if after := term.readFile("settings"); after != before {
			t.Errorf("%s: after a restart, the settings are\n%swant\n%s", command, after, before)
		}
		syscall.Kill(term.readPid("command"), syscall.SIGKILL)
		term.Expect("code=137")
		if after := term.readFile("after"); after != before {
			t.Errorf("%s: after the command was killed, the settings are\n%swant\n%s", command, after, before)
		}
		host.push(t, schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{"A": {Text: "one"}}})
		term.Type("stty sane; echo rea\"\"dy\n")
		term.Expect("ready")
	}
}

// TestRunWatchKeepsTerminalSettings checks the cases in which keyhatch must not change the
// terminal: the command ends by itself, or another program of the pipeline uses raw mode.
func TestRunWatchKeepsTerminalSettings(t *testing.T) {
	testenv.RequireTool(t, "bash")
	host := startBroker(t, "schema_version: 1\nproject: api\nsecrets: {A: }\n", schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{"A": {Text: "one"}}})
	term := newTerminal(t, host.socket)
	term.Type("keyhatch run --watch -- stty -echoe; stty -a >settings; echo do\"\"ne\n")
	term.Expect("done")
	if settings := term.readFile("settings"); !strings.Contains(settings, "-echoe") {
		t.Errorf("the settings of the command are lost:\n%s", settings)
	}
	// The second program of the pipeline changes the terminal's settings after keyhatch has started
	// the command.
	term.Type(`keyhatch run --watch -- sh -c 'echo $A; exec sleep 1000' | { read a; stty raw -echo </dev/tty; echo $a beg""un; read b; stty -a </dev/tty >settings; echo do""ne; }` + "\n")
	term.Expect("one begun")
	host.push(t, schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{"A": {Text: "two"}}})
	term.Expect("done")
	if settings := term.readFile("settings"); !strings.Contains(settings, "-icanon") {
		t.Errorf("the settings of the reader are lost:\n%s", settings)
	}
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

// A shellTerminal is a terminal in which an interactive shell runs.
type shellTerminal struct {
	*testenv.Terminal
	t   *testing.T
	dir string // the current directory of the shell
}

// newTerminal starts an interactive shell on a new terminal.
func newTerminal(t *testing.T, socket string) shellTerminal {
	t.Helper()
	c := exec.Command("bash", "--norc", "--noprofile", "-i")
	c.Env = append(os.Environ(), "KEYHATCH_SOCKET="+socket, "PS1=$ ", "TERM=dumb", "GORACE=atexit_sleep_ms=0")
	c.Dir = t.TempDir()
	term := testenv.StartOnTerminal(t, c)
	term.Expect("$ ")
	return shellTerminal{term, t, c.Dir}
}

// readPid reads a process ID from a file in the shell's directory.
func (term shellTerminal) readPid(file string) int {
	term.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(term.readFile(file)))
	if err != nil {
		term.t.Fatal(err)
	}
	return pid
}

// readFile reads a file in the shell's directory.
func (term shellTerminal) readFile(file string) string {
	term.t.Helper()
	text, err := os.ReadFile(filepath.Join(term.dir, file))
	if err != nil {
		term.t.Fatal(err)
	}
	return string(text)
}
