package store_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

func TestParseReadsEveryFormat(t *testing.T) {
	texts := store.Set{}
	for name, text := range map[schema.SecretName]string{
		"BARE": "a b", "HASH": "a#b", "COMMENT": "v", "EMPTY": "", "SINGLE": `a\n"$x`, "DOUBLE": "a\n\t\"\\$x`\\q",
		"LINES": "one\ntwo: 2\n= 3\n", "KEY": "-----BEGIN KEY-----\naGFsbG8=\n-----END KEY-----\n" + strings.Repeat("aGFsbG8h", 8) + "\naGFsbG8=\nYQ==\n", "EXPORTED": "e", "EQUALS": "a=b=c", "ONLY_COMMENT": "",
		"HASH_FIRST": "#a", "URL": "https://h/?a=1&b=2", "WORDS": "a =b; c", "BEFORE_COMMENT": "a", "SPACED": "dGVzdA==",
		"BACKSLASH": `p\ w\"d\`, "DOLLAR": "a$'b'",
		"ENDS": "one \t\ntwo \n", // each line of this value has white space before its newline
	} {
		texts[name] = textValue(text)
	}
	dotenv := "# a comment\r\n#===\nBARE= a b \nHASH=a#b\nCOMMENT=v # c\nEMPTY=\nSINGLE='a\\n\"$x' # c\n" +
		"DOUBLE=\"a\\n\\t\\\"\\\\\\$x\\`\\q\"\nLINES=\"one\ntwo: 2\n= 3\n\"\nKEY='-----BEGIN KEY-----\naGFsbG8=\n-----END KEY-----\n" + strings.Repeat("aGFsbG8h", 8) + "\naGFsbG8=\nYQ==\n'\nexport EXPORTED=e\nEQUALS=a=b=c\r\nONLY_COMMENT= # none\n" +
		"HASH_FIRST=#a\nURL=https://h/?a=1&b=2\nWORDS=a =b; c\nBEFORE_COMMENT=a # B=c\nSPACED = dGVzdA== # c\n" +
		"BACKSLASH=p\\ w\\\"d\\\nDOLLAR=a$'b'\n" +
		" export  ENDS = 'one \t\ntwo \n' \n"
	row := strings.Repeat("aGFsbG8", 10) + "\n"
	sshKey := "-----BEGIN OPENSSH PRIVATE KEY-----\n" + row + row + "aGFsbG8=\n-----END OPENSSH PRIVATE KEY-----\n"
	bundle := store.Set{
		"A": textValue("x\n"), "aws": bundleValue(map[schema.SecretName]string{"key": "k", "n": "5"}), "N": textValue("007"), "B": textValue("no"),
	}
	for _, c := range []struct {
		format store.Format
		text   string
		want   store.Set
	}{
		{store.Dotenv, dotenv, texts},
		{store.Dotenv, "# none\n", store.Set{}},
		{store.Dotenv, "A='" + strings.Repeat("aGFsbG8h", 8) + "\r\naGFsbG8=\r\n'\r\n", store.Set{"A": textValue(strings.Repeat("aGFsbG8h", 8) + "\r\naGFsbG8=\r\n")}},
		// The rows of a private key of OpenSSH have 70 characters.
		{store.Dotenv, "A=\"" + sshKey + "\"\n", store.Set{"A": textValue(sshKey)}},
		{store.Dotenv, "\ufeffA=\ufeffx\n", store.Set{"A": textValue("\ufeffx")}},
		{store.JSON, "\ufeff{\"A\": \"\ufeffx\"}", store.Set{"A": textValue("\ufeffx")}},
		{store.YAML, "\ufeffA: x\n", store.Set{"A": textValue("x")}},
		{store.JSON, `{"A": "x\n", "aws": {"key": "k", "n": "5"}, "N": "007", "B": "no"}`, bundle},
		{store.JSON, "{}\n", store.Set{}},
		{store.YAML, "A: |\n  x\naws: {key: k, n: 5}\nN: 007\nB: no\n", bundle},
		{store.YAML, "{}\n", store.Set{}},
		{store.YAML, "A: \"x\"\nB: 'it''s a\n  long https://h:1 text' # c\nC: \"\\\"\\n\\\n  ä y: z: \\\\\"\n", store.Set{
			"A": textValue("x"), "B": textValue("it's a long https://h:1 text"), "C": textValue("\"\nä y: z: \\")}},
	} {
		got, err := c.format.Parse([]byte(c.text))
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("Parse of %s: error %v; difference of the sets (-want +got):\n%s", c.format, err, diff)
		}
	}
	got, err := store.YAML.Parse([]byte("A: !!binary |\n  /wA=\n"))
	if err != nil || string(got["A"].Bytes) != "\xff\x00" || !got["A"].Binary {
		t.Errorf("Parse of YAML with a binary value: got %+v, error %v", got["A"], err)
	}
}

// TestDotenvNeedsLittleMemory checks that a file with many quoted values does not need memory for a copy
// of the rest of the file for each value.
func TestDotenvNeedsLittleMemory(t *testing.T) {
	var text strings.Builder
	for i := range 8000 {
		fmt.Fprintf(&text, "NAME_%d=\"%0100d\"\n", i, 0)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	set, err := store.Dotenv.Parse([]byte(text.String()))
	runtime.ReadMemStats(&after)
	if err != nil || len(set) != 8000 {
		t.Fatalf("Parse returned %d secrets and the error %v", len(set), err)
	}
	// A copy for each value would need about 4,000 times the size of the text. With the race detector,
	// package regexp allocates memory for each match, about 250 times the size of the text in all.
	if used := after.TotalAlloc - before.TotalAlloc; used > 1000*uint64(text.Len()) {
		t.Errorf("Parse has allocated %d bytes for a text of %d bytes", used, text.Len())
	}
}

// FuzzFormats checks that Parse never panics, that its errors are short, and that all
// names in the returned set are valid.
func FuzzFormats(f *testing.F) {
	for _, c := range storetest.BadStores() {
		f.Add([]byte(c.Name))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, format := range []store.Format{store.Dotenv, store.JSON, store.YAML} {
			set, err := format.Parse(text)
			if err != nil {
				if len(err.Error()) > 300 {
					t.Errorf("%s: the error is longer than 300 bytes: %v", format, err)
				}
				continue
			}
			for name := range set {
				if !schema.ValidSecretName(name) {
					t.Errorf("%s: the set contains the invalid name %q", format, name)
				}
			}
		}
	})
}
