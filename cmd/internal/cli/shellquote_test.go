package cli

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// TestShellQuoteIsOneWord quotes texts and gives the results to several shells. Each shell must
// read one word with the bytes of the text. The quoted text must contain only printable
// characters. It may contain unescaped spaces of the text only between single quotes.
func TestShellQuoteIsOneWord(t *testing.T) {
	for _, shell := range []string{"bash", "dash", "zsh", "fish", "busybox sh"} {
		t.Run(shell, func(t *testing.T) {
			args := strings.Fields(shell)
			testenv.RequireTool(t, args[0])
			set, print := "set -- ", `printf '%s:%s' $# "$1"`
			if shell == "fish" {
				set, print = "set argv ", `printf '%s:%s' (count $argv) "$argv[1]"`
			}
			home := t.TempDir() // fish writes files there
			for _, text := range []string{
				"a", "", "a b", "/home/me/My App", "-n x", "a  b", "a ", " a", strings.Repeat("a b", 50), "it's", `back\slash`, "$HOME `x`", "line\nbreak", "\x1b[31m it's \\n", "\xff", "caf\u00e9", "a\u202eb", "tab\t",
				"\n'; echo INJECTED; '", "\n\\'; echo INJECTED; '", "\n$(echo INJECTED)`echo INJECTED`\"", "-n\n\\c%s!!", "\x017", "\u2800\u3164",
				`x\';echo${IFS}INJECTED;\'y`, `x\';id>F;\'y`, `a\`, `c\\d`, `it's\`, `'`, `\'`,
			} {
				quoted := ShellQuote(text)
				if escapeUnprintable(quoted) != quoted {
					t.Errorf("%q is quoted as %q, which is not printable", text, quoted)
				}
				if strings.Contains(text, " ") && !strings.HasPrefix(quoted, "'") && strings.Contains(strings.TrimPrefix(quoted, `"$(printf %b `), " ") {
					t.Errorf("%q is quoted as %s, which contains spaces", text, quoted)
				}
				command := exec.Command(args[0], append(args[1:], "-c", set+quoted+"; "+print)...)
				command.Env = []string{"LC_ALL=C.UTF-8", "HOME=" + home, "PATH=" + os.Getenv("PATH")}
				command.Dir = home
				out, err := command.Output()
				if err != nil || string(out) != "1:"+text {
					t.Errorf("%q is quoted as %s, which the shell reads as %q (%v)", text, quoted, out, err)
				}
			}
		})
	}
}

// TestShellQuoteIsReadable quotes texts with spaces. A short text of usual words must be
// unchanged between single quotes. Any other text must be quoted in another way.
func TestShellQuoteIsReadable(t *testing.T) {
	for text, readable := range map[string]bool{
		"/home/me/My App": true, "a b c_d-e.f": true, "/x/" + strings.Repeat("a", 75) + " b": true,
		"/x/" + strings.Repeat("a", 76) + " b": false, "a  b": false, " a": false, "a ": false, "a + b": false, "a 'b": false, "a $b": false, "caf\u00e9 b": false, "a\tb": false, "~ b": false, "! secret X: y": false,
	} {
		want := "'" + text + "'"
		if got := ShellQuote(text); (got == want) != readable {
			t.Errorf("%q is quoted as %s", text, got)
		}
	}
}
