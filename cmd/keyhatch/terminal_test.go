package main

import (
	"os"
	"os/exec"
	"testing"

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
	term.TypeUntil("set -b; bg\n", "Stopped") // a read from the terminal stops cat in the background; set -b makes bash report the stop at once
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

// newTerminal starts an interactive shell on a new terminal.
func newTerminal(t *testing.T, socket string) *testenv.Terminal {
	t.Helper()
	c := exec.Command("bash", "--norc", "--noprofile", "-i")
	c.Env = append(os.Environ(), "KEYHATCH_SOCKET="+socket, "PS1=$ ", "TERM=dumb", "GORACE=atexit_sleep_ms=0")
	c.Dir = t.TempDir()
	term := testenv.StartOnTerminal(t, c)
	term.Expect("$ ")
	return term
}
