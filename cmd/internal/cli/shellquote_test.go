package cli

import (
	"os/exec"
	"testing"
)

// TestShellQuoteIsOneWord checks that bash reads each quoted text as one word with the same
// bytes, and that the quoted text contains only printable characters.
func TestShellQuoteIsOneWord(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("bash is not installed")
	}
	for _, text := range []string{"a", "", "a b", "it's", `back\slash`, "$HOME `x`", "line\nbreak", "\x1b[31m it's \\n", "\xff", "caf\u00e9", "a\u202eb", "tab\t"} {
		quoted := ShellQuote(text)
		if escapeUnprintable(quoted) != quoted {
			t.Errorf("%q is quoted as %q, which is not printable", text, quoted)
		}
		command := exec.Command("bash", "-c", "set -- "+quoted+`; printf '%s:%s' $# "$1"`)
		command.Env = []string{"LC_ALL=C.UTF-8"}
		out, err := command.Output()
		if err != nil || string(out) != "1:"+text {
			t.Errorf("%q is quoted as %s, which bash reads as %q (%v)", text, quoted, out, err)
		}
	}
}
