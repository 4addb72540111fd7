package cli

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestPrintable(t *testing.T) {
	for s, want := range map[string]string{
		"/home/dev/api":        "/home/dev/api",
		"with space":           "with space",
		"café 日本":              "café 日本",
		`a"b\c`:                `a"b\c`,
		"":                     `""`,
		"a\nb":                 `"a\nb"`,
		"\x1b[2J":              `"\x1b[2J"`,
		"tab\t":                `"tab\t"`,
		"\xff":                 `"\xff"`,
		"\u202egnp.exe":        `"\u202egnp.exe"`, // right-to-left override
		"zero\u200bwidth":      `"zero\u200bwidth"`,
		"no\u00a0break":        `"no\u00a0break"`,
		"C1 \u009b31m":         `"C1 \u009b31m"`,
		"line\u2028separator":  `"line\u2028separator"`,
		"\ufffd is a symbol":   `"\ufffd is a symbol"`,
		"한국어 Ελλάδα ½ «x»":     "한국어 Ελλάδα ½ «x»",
		"cafe\u0301 नमस्ते":    "cafe\u0301 नमस्ते",
		"a\u2800\u2800b":       `"a\u2800\u2800b"`, // Braille pattern without dots
		"\u3164é\"\\\u115f":    `"\u3164é\"\\\u115f"`,
		"\u1160\uffa0\u17b4":   `"\u1160\uffa0\u17b4"`,
		"\ufe0f\u034f\u180b":   `"\ufe0f\u034f\u180b"`,
		"\U0001d159\U00013441": `"\U0001d159\U00013441"`,
		"\U00016fe4\U000e0100": `"\U00016fe4\U000e0100"`,
		"two  spaces":          `"two\x20\x20spaces"`,
		"a     b c":            `"a\x20\x20\x20\x20 b c"`,
		" begins":              `" begins"`,
		"ends ":                `"ends "`,
	} {
		if got := Printable(s); got != want {
			t.Errorf("Printable(%q) = %s, want %s", s, got, want)
		}
	}
}

// TestManyMarksAreEscaped prints texts with many marks that follow each other. After two marks,
// each further mark must be escaped. Some terminals print many marks of one letter over the
// neighboring lines.
func TestManyMarksAreEscaped(t *testing.T) {
	for s, want := range map[string]string{
		"e\u0301\u0302":                    "e\u0301\u0302",
		"e\u0301\u0302\u0303\u20dde\u0301": "\"e\u0301\u0302\\u0303\\u20dde\u0301\"",
		"\u0301\u0302\u0303":               "\"\u0301\u0302\\u0303\"",
		"नमस्ते क्षि தமிழ் ไม้": "नमस्ते क्षि தமிழ் ไม้",
		"\u1100\u1161\u11a8":                   "\u1100\u1161\u11a8", // a syllable of Korean in three letters
		"\u1100" + strings.Repeat("\u1161", 3): "\"\u1100\u1161\u1161\\u1161\"",
		"\u1100\ud7b0\ud7cb\u0301":             "\"\u1100\ud7b0\ud7cb\\u0301\"",
	} {
		if got := Printable(s); got != want {
			t.Errorf("Printable(%+q) = %+q, want %+q", s, got, want)
		}
	}
	var out strings.Builder
	if err := PrintJSON(&out, "e"+strings.Repeat("\u0301", 4)); err != nil || out.String() != "\"e\u0301\u0301\\u0301\\u0301\"\n" {
		t.Errorf("PrintJSON printed %+q, error %v", out.String(), err)
	}
}

func TestPrintableWord(t *testing.T) {
	for s, want := range map[string]string{
		"/home/dev/caf\u00e9": "/home/dev/caf\u00e9",
		"a b":                 `"a\x20b"`,
		`a "b\`:               `"a\x20\"b\\"`,
		`a"b\x20`:             `a"b\x20`,
		`"a\x20b"`:            `"a\x20b"`,
		"a\n b":               `"a\n\x20b"`,
		"":                    `""`,
	} {
		if got := PrintableWord(s); got != want {
			t.Errorf("PrintableWord(%q) = %s, want %s", s, got, want)
		}
	}
}

// TestPrintJSONEscapesUnprintableCharacters prints strings that could change the order of the
// characters on a terminal, or look like a line of their own. PrintJSON must escape these
// characters, and the output must still be the same JSON value.
func TestPrintJSONEscapesUnprintableCharacters(t *testing.T) {
	in := []string{"a\u202eb\u2066", "\u200b", "\u009b31m", "\x7f", "\U000e0041", "\u2028", "\x1b[2J\n", "\u2800\u3164", "café 日本 <&>"}
	var out strings.Builder
	if err := PrintJSON(&out, in); err != nil {
		t.Fatal(err)
	}
	want := `[
  "a\u202eb\u2066",
  "\u200b",
  "\u009b31m",
  "\u007f",
  "\udb40\udc41",
  "\u2028",
  "\u001b[2J\n",
  "\u2800\u3164",
  "café 日本 <&>"
]
`
	if out.String() != want {
		t.Errorf("PrintJSON printed\n%s, want\n%s", out.String(), want)
	}
	var back []string
	if err := json.Unmarshal([]byte(out.String()), &back); err != nil || !slices.Equal(back, in) {
		t.Errorf("the output is the value %q, error %v, want %q", back, err, in)
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
