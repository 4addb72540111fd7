package cmd_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// TestPushHidesInputOnTerminal types secrets into keyhatchctl push on a terminal. The terminal must not
// show the secrets, and the terminal must have its earlier settings at the end. The line is longer than
// the kernel's limit for a line of a terminal. Ctrl-C must cancel the push.
func TestPushHidesInputOnTerminal(t *testing.T) {
	m := newMessageRun(t)
	m.startBroker("")
	for _, test := range []struct {
		file, key string
		want      int
	}{{"-", "\x04", 0}, {"-", "\x03", 130}, {"/dev/tty", "\x04", 0}, {"/dev/stdin", "\x03", 130}} {
		key, want := test.key, test.want
		c := exec.Command(filepath.Join(binDir, "keyhatchctl"), "--socket", m.runtimeDir+"/admin/admin.sock", "push", test.file)
		c.Env = m.env
		term := testenv.StartOnTerminal(t, c)
		t.Log(test.file)
		term.Expect("JSON object with all secrets (hidden; press " + endPrompt)
		term.Type(`{"A":"` + strings.Repeat("TRIPWIRE", 1000) + "\"}\r")
		term.Expect("received 1 line (press " + endPrompt)
		term.Type(key)
		if code := term.Wait(); code != want {
			t.Errorf("exit code %d, want %d", code, want)
		}
		rest := term.Rest()
		if strings.Contains(rest, "TRIP") || strings.Contains(rest, "loaded 1 secret") != (want == 0) {
			t.Errorf("the terminal shows %q", rest)
		}
		if !term.IsEchoing() {
			t.Error("the command did not restore the terminal")
		}
	}
}
