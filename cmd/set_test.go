package cmd_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// endPrompt is the end of each prompt of keyhatch-sidecar set. It names the key that ends the
// input. When endPrompt is on the terminal, set already hides the input.
const endPrompt = "Ctrl-D to end): "

// A setRun is a running keyhatch-sidecar set A, which reads the value of the secret A from a
// terminal.
type setRun struct {
	*testenv.Terminal
	t    *testing.T
	cmd  *exec.Cmd
	file string // the file of the secret A, which already contains the value "good"
}

// startSet starts keyhatch-sidecar set A with the additional arguments args, and waits for the
// prompt.
func startSet(t *testing.T, args ...string) *setRun {
	t.Helper()
	store := t.TempDir()
	s := &setRun{t: t, file: filepath.Join(store, "A")}
	if err := os.WriteFile(s.file, []byte("good"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command(filepath.Join(binDir, "keyhatch-sidecar"), append([]string{"set", "A", "--store", "dir:" + store}, args...)...)
	s.cmd.Env = append(os.Environ(), "TERM=xterm")
	s.Terminal = testenv.StartOnTerminal(t, s.cmd)
	s.Expect(endPrompt)
	if s.IsEchoing() {
		t.Error("the terminal echoes the value")
	}
	return s
}

// end waits for the end of the command. It fails if the exit code or the value of A is not as
// given, or if the terminal does not have its earlier settings.
func (s *setRun) end(exitCode int, value string) {
	s.t.Helper()
	if code := s.Wait(); code != exitCode {
		s.t.Errorf("exit code %d, want %d", code, exitCode)
	}
	if got, err := os.ReadFile(s.file); err != nil || string(got) != value {
		s.t.Errorf("the store contains %.100q (%d bytes), error %v; want %.100q (%d bytes)", got, len(got), err, value, len(value))
	}
	if !s.IsEchoing() {
		s.t.Error("the command did not restore the terminal")
	}
}

// TestSetReadsValueFromTerminal types and pastes values of different lengths, with one line and
// with many lines. After corrections with keys such as backspace, the store must contain exactly
// the typed text. Each line break in the store must be \n.
func TestSetReadsValueFromTerminal(t *testing.T) {
	key := "-----BEGIN PRIVATE KEY-----\n" + strings.Repeat(strings.Repeat("x", 64)+"\n", 1000) + "-----END PRIVATE KEY-----\n\n"
	for _, c := range []struct{ name, typed, value, report string }{
		{"a token", "token\x04", "token", "A: 5 bytes, replaced 4 bytes\r\n"},
		{"a token and Enter", "token\r\x04", "token\n", "A: 5 bytes, replaced 4 bytes\r\n"},
		{"a long line", strings.Repeat("x", 100_000) + "\x04", strings.Repeat("x", 100_000), "A: 100000 bytes, replaced 4 bytes\r\n"},
		{"a key", strings.ReplaceAll(key, "\n", "\r") + "\x04", key, "bytes\r\n"},
		{"a corrected token", "tokem\x7f\x7fenn\bx\x7f\x04", "tokeen"[:4] + "n", "A: 5 bytes, replaced 4 bytes\r\n"},
		{"corrected characters of two bytes", "aéü\x7f\x7f\x7f\x7fb\x04", "b", "A: 1 byte, replaced 4 bytes\r\n"},
		{"a line typed again", "one\rtwo\x15three\x04", "one\nthree", "A: 9 bytes, replaced 4 bytes\r\n"},
		{"all kinds of line breaks", "1\r\n2\r\r\n3\n4\n\n5\r\n\x04", "1\n2\n\n3\n4\n\n5\n", "A: 11 bytes, replaced 4 bytes\r\n"},
		{"Ctrl-D twice", "token\x04\x04", "token", "A: 5 bytes, replaced 4 bytes\r\n"},
		{"a paste", "\x1b[200~one\rtwo\x1b[201~\x04", "one\ntwo", "A: 7 bytes, replaced 4 bytes\r\n"},
		{"a paste with Windows line breaks", "\x1b[200~one\r\ntwo\r\n\x1b[201~\x04", "one\ntwo\n", "A: 7 bytes, replaced 4 bytes\r\n"},
		{"typed text and two pastes", "1\x1b[200~2\x1b[201~\x1b[200~3\x1b[201~4\x04", "1234", "A: 4 bytes, replaced 4 bytes\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startSet(t)
			s.Type(c.typed)
			if before := s.Expect(c.report); strings.Contains(before, "tok") || strings.Contains(before, "x") {
				t.Errorf("the terminal shows the value: %.200q", before)
			}
			s.end(0, c.value)
		})
	}
}

// TestSetRefusesDoubtfulInputFromTerminal types input that is probably a mistake, for example an
// empty value or a value with control characters. set must not replace the stored value.
func TestSetRefusesDoubtfulInputFromTerminal(t *testing.T) {
	for _, c := range []struct{ name, typed, message string }{
		{"nothing", "\x04", "the value of A is empty"},
		{"only Enter", "\r\x04", "the value of A is empty"},
		{"a cursor key", "token\x1b[D\x04", "control character"},
		{"text after Ctrl-D", "tok\x04en\r", "after Ctrl-D"},
		{"Ctrl-D in a long text", strings.Repeat("x", 4095) + "\x04" + strings.Repeat("x", 4096), "after Ctrl-D"},
		{"a paste with Ctrl-D", "\x1b[200~tok\x04en\x1b[201~\x04", "the pasted text contains a control character"},
		{"a paste with Ctrl-C", "\x1b[200~tok\x03en\r\x1b[201~\x04", "the pasted text contains a control character"},
		{"a paste with Ctrl-Z", "\x1b[200~tok\x1aen\x1b[201~\x04", "the pasted text contains a control character"},
		{"a paste with a backspace", "\x1b[200~tok\x7fen\x1b[201~\x04", "the pasted text contains a control character"},
		{"a paste with an escape sequence", "\x1b[200~\x1b[31mred\x1b[201~\x04", "the pasted text contains a control character"},
		{"a start mark in a paste", "\x1b[200~tok\x1b[200~en\x1b[201~\x04", "the pasted text contains a control character"},
		{"an end mark in a paste", "\x1b[200~tok\x1b[201~en\x1b[201~\x04", "the input contains a control character"},
		{"too much", strings.Repeat("x", 1<<20) + "yz\x04", "more than 1048576 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startSet(t)
			s.Type(c.typed)
			s.Expect(c.message)
			s.end(1, "good")
		})
	}
	s := startSet(t, "--allow-empty")
	s.Type("\x04")
	s.end(0, "\n") // set stores a newline, because the sidecar does not use an empty file
}

// TestSetRestoresTerminalAfterSignal types a part of a value, and then sends a signal or types a
// key that sends a signal. The secret must not change, and the terminal must echo again.
func TestSetRestoresTerminalAfterSignal(t *testing.T) {
	for _, c := range []struct {
		name   string
		signal syscall.Signal // 0 if the test types key
		key    string
		code   int
	}{
		{name: "Ctrl-C", key: "\x03", code: 130},
		{name: "Ctrl-backslash", key: "\x1c", code: 131},
		{name: "Ctrl-C before more text", key: "\x03more\x04", code: 130},
		{name: "Ctrl-backslash before more text", key: "\x1cmore\x04", code: 131},
		{name: "Ctrl-C after Ctrl-D", key: "\x04\x03", code: 130},
		{name: "SIGINT", signal: syscall.SIGINT, code: 130},
		{name: "SIGTERM", signal: syscall.SIGTERM, code: 143},
		{name: "SIGHUP", signal: syscall.SIGHUP, code: 129},
		{name: "SIGQUIT", signal: syscall.SIGQUIT, code: 131},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startSet(t)
			s.Type("a part")
			if c.key != "" {
				s.Type(c.key)
			} else {
				s.cmd.Process.Signal(c.signal)
			}
			s.end(c.code, "good")
		})
	}
}

// TestSetEndsIfTerminalIsClosed closes the terminal during the input. set must fail, and
// must not change the secret.
func TestSetEndsIfTerminalIsClosed(t *testing.T) {
	s := startSet(t)
	s.Type("a part")
	s.HangUp()
	code := s.Wait()
	if got, err := os.ReadFile(s.file); code == 0 || err != nil || string(got) != "good" {
		t.Errorf("exit code %d; the store contains %q, error %v", code, got, err)
	}
}

// TestSetCanBeStoppedAndContinued stops set with Ctrl-Z. While set is stopped, the terminal
// must echo. After fg, the terminal must hide the input again. The shell dash does not change
// the terminal's settings itself, so set must change them.
func TestSetCanBeStoppedAndContinued(t *testing.T) {
	testenv.RequireTool(t, "dash")
	store := t.TempDir()
	c := exec.Command("dash", "-c", "set -m; keyhatch-sidecar set A --store dir:"+store+"; echo stopp''ed; read line; echo $line; fg")
	c.Env = append(os.Environ(), "PATH="+binDir+":"+os.Getenv("PATH"))
	term := testenv.StartOnTerminal(t, c)
	term.Expect(endPrompt)
	term.Type("tok\x1a")
	term.Expect("stopped")
	if !term.IsEchoing() {
		t.Error("the terminal does not echo while set is stopped")
	}
	term.Type("continue\r")
	term.Expect("continue\r\ncontinue\r\n")
	term.Expect("starting again: the earlier input was discarded")
	term.Expect(endPrompt)
	if term.IsEchoing() {
		t.Error("the terminal echoes the value after fg")
	}
	term.Type("new\x04")
	term.Expect("A: 3 bytes")
	if got, err := os.ReadFile(store + "/A"); err != nil || string(got) != "new" {
		t.Errorf("the store contains %q, error %v; want the value that was typed after the stop", got, err)
	}
}

// TestSetIgnoresStopWithoutShell types Ctrl-Z when no shell can continue set, as in a
// container. Then set must not stop.
func TestSetIgnoresStopWithoutShell(t *testing.T) {
	s := startSet(t)
	s.Type("tok\x1amore\x04")
	s.Expect(endPrompt)
	s.Type("new\x04")
	s.Expect("A: 3 bytes")
	s.end(0, "new")
}

// TestSetRestoresTerminalAfterEndOfStderr runs set with a pipe as standard error, and the reader
// of the pipe exits early. The kernel sends SIGPIPE when set writes to the pipe. At the end of
// set, the terminal must echo again.
func TestSetRestoresTerminalAfterEndOfStderr(t *testing.T) {
	set := filepath.Join(binDir, "keyhatch-sidecar") + " set A --store dir:" + t.TempDir()
	term := testenv.StartOnTerminal(t, exec.Command("sh", "-c", "{ "+set+"; echo exit code $? >/dev/tty; } 2>&1 | head -c 5; read -r line"))
	term.Expect("value")
	term.TypeUntil("a part\r", "exit code 141")
	if !term.IsEchoing() {
		t.Error("the command did not restore the terminal")
	}
}

// TestSetStopsScriptOnCtrlC presses Ctrl-C in a script that runs set and then another command.
// The shell must end the script and must not run the other command.
func TestSetStopsScriptOnCtrlC(t *testing.T) {
	testenv.RequireTool(t, "dash")
	c := exec.Command("dash", "-c", filepath.Join(binDir, "keyhatch-sidecar")+" set A --store dir:"+t.TempDir()+"; echo more")
	term := testenv.StartOnTerminal(t, c)
	term.Expect(endPrompt)
	term.Type("tok\x03")
	term.Wait()
	if rest := term.Rest(); strings.Contains(rest, "more") {
		t.Errorf("the script continued after Ctrl-C: %q", rest)
	}
}

// TestSetAsksTerminalToMarkPastes runs set on a terminal. set must turn on bracketed paste while
// it reads the value, and turn it off at the end and before a stop. If TERM is dumb, set must not
// write the escape sequence, because such a terminal would show the sequence.
func TestSetAsksTerminalToMarkPastes(t *testing.T) {
	s := startSet(t)
	if !bytes.Contains(s.Output(), []byte("\x1b[?2004h")) {
		t.Errorf("bracketed paste is off at the prompt %q", s.Output())
	}
	s.Type("tok\x1a")
	s.Expect("\x1b[?2004l")
	s.Expect("\x1b[?2004h")
	s.Expect(endPrompt)
	s.Type("token\x04")
	s.Expect("\x1b[?2004l")
	s.end(0, "token")

	c := exec.Command(filepath.Join(binDir, "keyhatch-sidecar"), "set", "A", "--store", "dir:"+t.TempDir())
	c.Env = append(os.Environ(), "TERM=dumb")
	dumb := testenv.StartOnTerminal(t, c)
	dumb.Expect(endPrompt)
	if bytes.Contains(dumb.Output(), []byte("\x1b")) {
		t.Errorf("set wrote an escape sequence to a dumb terminal: %q", dumb.Output())
	}
}

// TestSetAcknowledgesLines types a line, and pastes two lines. Each time, set must print how many
// lines it has received. Without such a reaction, a user could think that set received nothing,
// and type the value again.
func TestSetAcknowledgesLines(t *testing.T) {
	s := startSet(t)
	s.Type("one\r")
	s.Expect("received 1 line (press Ctrl-D to end): ")
	s.Type("\x1b[200~two\rthree\x1b[201~")
	s.Expect("received 3 lines (press Ctrl-D to end): ")
	s.Type("\x04")
	s.Expect("A: 13 bytes, replaced 4 bytes\r\n")
	s.end(0, "one\ntwo\nthree")
}

// TestSetWarnsAboutDoubledLineBreaks pastes Windows line breaks as xterm and tmux do. If each
// line break of the value is doubled, set must print a warning. It must not change the value,
// because a value can also contain empty lines.
func TestSetWarnsAboutDoubledLineBreaks(t *testing.T) {
	for typed, value := range map[string]string{"one\r\rtwo\r\r": "one\n\ntwo\n\n", "one\r\r": "one\n\n", "one\r\rtwo\r": "", "one": ""} {
		s := startSet(t)
		s.Type("\x1b[200~" + typed + "\x1b[201~\x04")
		s.Expect("A: ")
		s.Wait()
		if warned := strings.Contains(s.Rest(), "each line break of A is doubled"); warned != (value != "") {
			t.Errorf("after the paste %q, set prints a warning: %t", typed, warned)
		}
		if got, err := os.ReadFile(s.file); err != nil || value != "" && string(got) != value {
			t.Errorf("the store contains %q, error %v; want %q", got, err, value)
		}
	}
}

// TestSetHidesValueFromTerminalFile selects the terminal with --file or with FIELD=@FILE.
// set must hide the typed value.
func TestSetHidesValueFromTerminalFile(t *testing.T) {
	for _, file := range []string{"/dev/stdin", "/dev/tty"} {
		t.Run(file, func(t *testing.T) {
			s := startSet(t, "--file", file)
			s.Type("token\x04")
			s.end(0, "token")
		})
	}
	store := t.TempDir()
	term := testenv.StartOnTerminal(t, exec.Command(filepath.Join(binDir, "keyhatch-sidecar"), "set", "aws", "id=@/dev/tty", "--store", "dir:"+store))
	term.Expect("value of aws/id")
	term.Expect(endPrompt)
	if term.IsEchoing() {
		t.Error("the terminal echoes the value")
	}
	term.Type("token\x04")
	term.Expect("aws/id: 5 bytes, new")
}

// TestSetAsksForEachFieldOfBundle types the values of two fields on a terminal. set must
// ask for each field, and write both values.
func TestSetAsksForEachFieldOfBundle(t *testing.T) {
	store := t.TempDir()
	term := testenv.StartOnTerminal(t, exec.Command(filepath.Join(binDir, "keyhatch-sidecar"), "set", "aws", "id=-", "key=-", "--store", "dir:"+store))
	for _, field := range []string{"id", "key"} {
		term.Expect("value of aws/" + field)
		term.Expect(endPrompt)
		term.Type("the " + field + "\x04")
	}
	if code := term.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, field := range []string{"id", "key"} {
		if got, err := os.ReadFile(store + "/aws/" + field); err != nil || string(got) != "the "+field {
			t.Errorf("the field %s contains %q, error %v", field, got, err)
		}
	}
}

// TestSetLeavesNoInputForShell types values with several lines in an interactive shell. It ends
// the first value with Ctrl-D, and interrupts the second value with Ctrl-C. The shell must not
// run a line of a value.
func TestSetLeavesNoInputForShell(t *testing.T) {
	testenv.RequireTool(t, "bash")
	store := t.TempDir()
	c := exec.Command("bash", "--norc", "--noprofile", "-i")
	c.Env = append(os.Environ(), "PATH="+binDir+":"+os.Getenv("PATH"), "PS1=$ ", "TERM=dumb")
	term := testenv.StartOnTerminal(t, c)
	term.Expect("$ ")
	term.Type("keyhatch-sidecar set A --store dir:" + store + "\n")
	term.Expect(endPrompt)
	term.Type("one\recho exec\"\"uted\r\x04")
	term.Expect("A: ")
	term.Type("echo code=$?\n")
	if before := term.Expect("code=0"); strings.Contains(before, "executed") {
		t.Errorf("the shell ran a line of the value: %q", before)
	}
	if got, err := os.ReadFile(store + "/A"); err != nil || string(got) != "one\necho exec\"\"uted\n" {
		t.Errorf("the store contains %q, error %v", got, err)
	}
	term.Type("keyhatch-sidecar set B --store dir:" + store + "\n")
	term.Expect(endPrompt)
	term.Type("one\r\x03echo exec\"\"uted\r")
	term.Expect("$ ")
	term.Type("echo code=$?\n")
	if before := term.Expect("code=130"); strings.Contains(before, "executed") {
		t.Errorf("the shell ran a line of the value after Ctrl-C: %q", before)
	}
}

// TestSetFindsErrorsBeforeItAsks runs set with errors that set can find without the value. set
// must report the error and must not ask for the value.
func TestSetFindsErrorsBeforeItAsks(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/store/aws", 0o700); err != nil {
		t.Fatal(err)
	}
	for file, value := range map[string]string{"store/A": "1", "store/aws/key": "1", "binary": "\xff", "empty": ""} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ args, message string }{
		{"aws --store dir:store", "aws is a bundle and not a secret"},
		{"A/key --store dir:store", "A is a secret and not a bundle"},
		{"A key=- --store dir:store", "A is a secret and not a bundle"},
		{"aws id=- --store dir:store", "the bundle also contains key"},
		{"A.swp --store dir:store", "the sidecar ignores the name A.swp"},
		{"A --store dir:none/store", "cannot create the directory"},
		{"A --store dir:store/A", "not a directory"},
		{"gcp id=- key=@missing --store dir:store", "cannot read the value of gcp/key: no such file or directory"},
		{"gcp id=- key=@binary --store dir:store", "a field of a bundle must be valid UTF-8"},
		{"gcp id=- key=@empty --store dir:store", "the value of gcp/key is empty"},
	} {
		t.Run(c.args, func(t *testing.T) {
			cmd := exec.Command(filepath.Join(binDir, "keyhatch-sidecar"), append([]string{"set"}, strings.Fields(c.args)...)...)
			cmd.Dir = dir
			term := testenv.StartOnTerminal(t, cmd)
			code := term.Wait()
			if output := term.Rest(); code != 1 || strings.Contains(output, "value of gcp/id") || !strings.Contains(output, c.message) {
				t.Errorf("exit code %d; the output is %q; want %q", code, output, c.message)
			}
		})
	}
}

// TestSetReadsStandardInputAndFiles gives values to set on standard input and in files. The store
// must contain exactly the given bytes.
func TestSetReadsStandardInputAndFiles(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"token", "token\n", "\xff\n", "a\x00b\r\n\n", "\xef\xbb\xbftoken", strings.Repeat("x", 1_000_000)} {
		file := filepath.Join(dir, "value")
		if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"A"}, {"A", "--file", file}, {"B", "field=-"}, {"B", "field=@" + file}} {
			if args[0] == "B" && !utf8.ValidString(value) {
				continue // skip binary values, because a field of a bundle must be text
			}
			c := exec.Command(filepath.Join(binDir, "keyhatch-sidecar"), append([]string{"set", "--store", "dir:" + store}, args...)...)
			c.Stdin = strings.NewReader(value)
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("set %v of a value with %d bytes: %v: %s", args, len(value), err, out)
				continue
			}
			path := filepath.Join(store, args[0])
			if args[0] == "B" {
				path = filepath.Join(path, "field")
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, []byte(value)) {
				t.Errorf("set %v: the store contains %.50q, error %v; want %.50q", args, got, err, value)
			}
			os.RemoveAll(filepath.Join(store, args[0]))
		}
	}
	filepath.WalkDir(store, func(path string, entry fs.DirEntry, _ error) error {
		if !entry.IsDir() {
			t.Errorf("the file %s is still in the store", path)
		}
		return nil
	})
}
