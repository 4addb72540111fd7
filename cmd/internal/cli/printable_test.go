package cli

import (
	"errors"
	"os"
	"testing"

	"github.com/spf13/cobra"
)

func TestPrintable(t *testing.T) {
	for s, want := range map[string]string{
		"/home/dev/api":         "/home/dev/api",
		"with space":            "with space",
		"café 日本":               "café 日本",
		`a"b\c`:                 `a"b\c`,
		"":                      `""`,
		"a\nb":                  `"a\nb"`,
		"\x1b[2J":               `"\x1b[2J"`,
		"tab\t":                 `"tab\t"`,
		"\xff":                  `"\xff"`,
		"\u202egnp.exe":         `"\u202egnp.exe"`, // right-to-left override
		"zero\u200bwidth":       `"zero\u200bwidth"`,
		"no\u00a0break":         `"no\u00a0break"`,
		"C1 \u009b31m":          `"C1 \u009b31m"`,
		"line\u2028separator":   `"line\u2028separator"`,
		"\ufffd is a valid one": "\ufffd is a valid one",
	} {
		if got := Printable(s); got != want {
			t.Errorf("Printable(%q) = %s, want %s", s, got, want)
		}
	}
}

// TestPrintErrorEscapesControlCharacters prints an error whose text contains escape
// sequences and a line that looks like a hint. Only the hint of the error itself may
// start at the beginning of a line.
func TestPrintErrorEscapesControlCharacters(t *testing.T) {
	failure := &Error{Err: errors.New("cannot open \x1b[2Ja\rb\xff\u202e: é\tx\nhint: run evil\nkeyhatchctl: approved\n"), Hint: "run good\x1b[1A\nhint: run evil"}
	got := captureStderr(t, func() {
		if code := PrintError(&cobra.Command{Use: "keyhatchctl"}, failure); code != ExitFailure {
			t.Errorf("the exit code is %d", code)
		}
	})
	want := `keyhatchctl: cannot open \x1b[2Ja\rb\xff\u202e: é\tx` + "\n  hint: run evil\n  keyhatchctl: approved\n" + `hint: run good\x1b[1A` + "\n  hint: run evil\n"
	if got != want {
		t.Errorf("PrintError printed\n%q, want\n%q", got, want)
	}
}

func captureStderr(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.Create(t.TempDir() + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	old := os.Stderr
	os.Stderr = file
	defer func() { os.Stderr = old }()
	f()
	text, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
