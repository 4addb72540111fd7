package cmd_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// TestSignalEndsCommandSilently sends signals to commands that wait for a secret. Each command
// must exit with 128 plus the signal's number and must not print an error.
func TestSignalEndsCommandSilently(t *testing.T) {
	m := newMessageRun(t)
	m.startBroker("")
	m.prepare("mkdir -p api/.keyhatch && printf 'schema_version: 1\\nproject: api\\nsecrets: {A: }\\n' > api/.keyhatch/manifest.yaml")
	m.prepare("keyhatchctl --socket $ADMIN register api")
	for signal, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		for _, args := range [][]string{{"get", "--wait", "1m", "A"}, {"run", "--wait", "1m", "--", "true"}, {"export", "--wait", "1m"}} {
			cmd := exec.Command(filepath.Join(binDir, "keyhatch"), args...)
			cmd.Env, cmd.Dir = m.env, m.work
			var output bytes.Buffer
			cmd.Stdout, cmd.Stderr = &output, &output
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// Wait until the command has an open socket. Before that, the command installs its
			// signal handler, so the handler gets the signal.
			waitForOpenFile(t, cmd.Process.Pid, "socket:")
			cmd.Process.Signal(signal)
			cmd.Wait()
			if args[0] == "export" { // after the signal, export must print only the command false, which the shell runs
				output.Truncate(len(strings.TrimSuffix(output.String(), "false\n")))
			}
			if code := testenv.ShellExitCode(cmd.ProcessState); code != want || output.Len() > 0 {
				t.Errorf("%v, %v: exit %d, want %d: %s", args, signal, code, want, output.String())
			}
		}
	}
}

// TestCtrlCEndsEventStream runs keyhatchctl events --follow. It presses Ctrl-C while the command
// waits for events, and again while another such command waits for a stopped broker. The exit
// code must be 130, and the command must not print a hint.
func TestCtrlCEndsEventStream(t *testing.T) {
	m := newMessageRun(t)
	broker := m.startBroker("")
	for _, stopped := range []bool{false, true} {
		c := exec.Command(filepath.Join(binDir, "keyhatchctl"), "--socket", m.runtimeDir+"/admin/admin.sock", "events", "--follow")
		c.Env = m.env
		term := testenv.StartOnTerminal(t, c)
		term.Expect("broker.started")
		if stopped {
			broker.Signal(os.Interrupt)
			term.Expect("keyhatchctl: the connection to the broker ended; trying to connect again")
		}
		term.Type("\x03")
		if code := term.Wait(); code != 130 {
			t.Errorf("exit code %d, want 130", code)
		}
		if rest := term.Rest(); strings.Contains(rest, "hint:") {
			t.Errorf("after Ctrl-C, the command printed %q", rest)
		}
	}
}

// TestCtrlCEndsCommandsThatReadTerminal types Ctrl-C while a command waits for its standard
// input. The command must end with exit code 130 and must not print an error.
func TestCtrlCEndsCommandsThatReadTerminal(t *testing.T) {
	for _, args := range [][]string{
		{"keyhatch", "credential", "git", "get"},
		{"keyhatch", "credential", "git", "store"},
		{"keyhatch", "credential", "docker", "store"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			c := exec.Command(filepath.Join(binDir, args[0]), args[1:]...)
			term := testenv.StartOnTerminal(t, c)
			term.Type("a=line\r")
			term.Expect("a=line\r\n")
			term.WaitUntilRead()
			term.Type("\x03")
			term.Expect("^C")
			if code := term.Wait(); code != 130 {
				t.Errorf("exit code %d, want 130", code)
			}
			if rest := term.Rest(); rest != "" {
				t.Errorf("the command printed %q", rest)
			}
		})
	}
}

// waitForOpenFile waits until a process has opened a file. prefix is the beginning of the file's
// path, or "socket:" for a socket.
func waitForOpenFile(t *testing.T, pid int, prefix string) {
	t.Helper()
	testenv.Require(t, os.Geteuid() == 0, "reading the open files of an undumpable process requires root")
	for deadline := time.Now().Add(15 * time.Second); !hasOpenFile(pid, prefix); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the command did not open %s", prefix)
		}
	}
}

func hasOpenFile(pid int, prefix string) bool {
	links, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "fd", "*"))
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, prefix) {
			return true
		}
	}
	return false
}

// TestCtrlCEndsLoopOfShell presses Ctrl-C while an interactive bash runs, in a loop, a command
// that reads the terminal. bash must end the loop, which it does only if SIGINT has ended the
// command. The exit code must be 130.
func TestCtrlCEndsLoopOfShell(t *testing.T) {
	testenv.RequireTool(t, "bash")
	for command, prompt := range map[string]string{
		"keyhatch-sidecar set $x --store dir:" + t.TempDir(): endPrompt,
		"keyhatchctl push -":               endPrompt,
		"keyhatch credential docker store": "",
	} {
		t.Run(command, func(t *testing.T) {
			c := exec.Command("bash", "--norc", "--noprofile", "-i")
			c.Env = append(os.Environ(), "PATH="+binDir+":"+os.Getenv("PATH"), "PS1=$ ", "TERM=dumb")
			term := testenv.StartOnTerminal(t, c)
			term.Expect("$ ")
			term.Type("for x in A B; do echo beg\"\"un; " + command + "; echo conti\"\"nued; done\n")
			term.Expect("begun\r\n")
			if prompt != "" {
				term.Expect(prompt)
			} else {
				term.Type("a=line\n")
				term.Expect("a=line\r\n")
				term.WaitUntilRead()
			}
			term.Type("\x03")
			if output := term.Expect("$ "); strings.Contains(output, "continued") || strings.Contains(output, "begun") {
				t.Errorf("bash continued the loop: %q", output)
			}
			term.Type("echo co\"\"de=$?\n")
			term.Expect("code=130\r\n")
		})
	}
}
