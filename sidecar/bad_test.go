package sidecar

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/keyhatch/keyhatch/schema"
)

// A badStore is one way for a store to be bad. Its error holds every one of
// wants, and nothing of any content.
type badStore struct {
	name  string
	store func(dir string) Store
	wants []string
}

// inFile is a file of this name with this text, behind a first good line.
func inFile(name, text string, wants ...string) badStore {
	return badStore{name + ": " + text, func(dir string) Store {
		path := filepath.Join(dir, name)
		write(path, text)
		return File{path, FormatOf(path)}
	}, append([]string{name}, wants...)}
}

func inExec(command string, format Format, wants ...string) badStore {
	return badStore{command, func(string) Store { return Exec{Command: command, Format: format, Timeout: 300 * time.Millisecond} }, wants}
}

func badStores() []badStore {
	big := "A=" + tripwire + strings.Repeat("x", schema.MaxPush)
	return []badStore{
		// dotenv
		inFile("a.env", "", "it is empty"),
		inFile("a.env", "A=TRIPWIRE\nTRIPWIRE\n", "line 2", "not NAME=value"),
		inFile("a.env", "A=TRIPWIRE\nA=TRIPWIRE\n", "line 2", "A stands twice"),
		inFile("a.env", "A=TRIPWIRE\nTRIPWIRE b=TRIPWIRE\n", "line 2", "does not match"),
		inFile("a.env", "=TRIPWIRE\n", "line 1", "does not match"),
		inFile("a.env", "B=1\nA=\"TRIPWIRE\n\n", "line 2", "the quote of A does not end"),
		inFile("a.env", "A='TRIPWIRE", "line 1", "does not end"),
		inFile("a.env", "A='TRIPWIRE' TRIPWIRE\n", "line 1", "behind the quote of A"),
		inFile("a.env", "A='TRIPWIRE\n2\n3'\nB='x'y\n", "line 4", "behind the quote of B"),
		inFile("a.env", "A=TRIPWIRE\x00\n", "line 1", "A holds a NUL"),
		inFile("a.env", "A=TRIPWIRE\xff\n", "not UTF-8"),
		inFile("a.env", "\x7fELF\x02\x01\x01\xf0TRIPWIRE", "not UTF-8"),
		inFile("a.env", big, "1048576"),
		inFile("a.env", strings.Repeat("N", 129)+"=TRIPWIRE", "line 1", "does not match"),
		// JSON
		inFile("a.json", "", "it is empty"),
		inFile("a.json", "null", "line 1", "not a JSON object"),
		inFile("a.json", "[\"TRIPWIRE\"]", "not a JSON object"),
		inFile("a.json", "{\n\"A\": \"TRIPWIRE\",\n\"A\": \"TRIPWIRE\"}", "line 3", "each name once"),
		inFile("a.json", "{\n\"A\": \"TRIPWIRE", "line 2", "not a JSON object"),
		inFile("a.json", "{\"A\": \"TRIPWIRE\"} TRIPWIRE", "data after"),
		inFile("a.json", "{\"A\": 5, \"B\": \"TRIPWIRE\"}", "line 1", "A is neither a string"),
		inFile("a.json", "{\"A\": null}", "A is neither a string"),
		inFile("a.json", "{\"A\": {\"x\": {\"y\": \"TRIPWIRE\"}}}", "field x of A is not a string"),
		inFile("a.json", "{\"A\": {\"x\": 5}}", "field x of A is not a string"),
		inFile("a.json", "{\"TRIPWIRE TRIPWIRE\": \"TRIPWIRE\"}", "does not match"),
		inFile("a.json", "{\"A\": \"TRIPWIRE\\ud800\"}", "not a JSON object"),
		inFile("a.json", "{\"A\": \"TRIPWIRE\xff\"}", "not UTF-8"),
		inFile("a.json", "{\"A\": {\"TRIPWIRE !\": \"TRIPWIRE\"}}", "does not match"),
		// YAML
		inFile("a.yaml", "", "it is empty"),
		inFile("a.yaml", "- TRIPWIRE\n", "line 1", "not a mapping"),
		inFile("a.yaml", "TRIPWIRE\n", "line 1", "not a mapping"),
		inFile("a.yaml", "A: TRIPWIRE\nA: TRIPWIRE\n", "line 2", "A stands twice"),
		inFile("a.yaml", "A: \"TRIPWIRE\n", "not valid YAML"),
		inFile("a.yaml", "A: TRIPWIRE\n\tB: TRIPWIRE\n", "not valid YAML"),
		inFile("a.yaml", "A: &a TRIPWIRE\nB: *a\n", "line 1", "anchors, aliases"),
		inFile("a.yaml", "A: TRIPWIRE\nB: {<<: {x: TRIPWIRE}}\n", "line 2", "merge keys"),
		inFile("a.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\n", "line 1", "anchors, aliases"),
		inFile("a.yaml", "A: [TRIPWIRE]\n", "line 1", "neither text nor a mapping"),
		inFile("a.yaml", "A: {x: {y: TRIPWIRE}}\n", "line 1", "neither text nor a mapping"),
		inFile("a.yaml", "A: TRIPWIRE\nB:\n", "line 2", "a value is missing"),
		inFile("a.yaml", "A: TRIPWIRE\n---\nB: TRIPWIRE\n", "more than one YAML document"),
		inFile("a.yaml", "TRIPWIRE x: TRIPWIRE\n", "line 1", "does not match"),
		inFile("a.yaml", "A: !!binary TRIPWIRE!\n", "line 1", "A is not base64"),
		inFile("a.yaml", "A: {x: !!binary VFJJUFdJUkU=}\n", "line 1", "field x of A is binary"),
		inFile("a.yaml", "A: !mine TRIPWIRE\n", "line 1", "a tag that is not known"),
		// Files that are none, or not readable as what they are called.
		{"no file", func(dir string) Store { return File{dir + "/none.env", Dotenv} }, []string{"none.env", "no such file"}},
		{"a directory", func(dir string) Store { return File{dir, Dotenv} }, []string{"it is not a file"}},
		{"a FIFO", func(dir string) Store {
			if err := syscall.Mkfifo(dir+"/a.env", 0o600); err != nil {
				panic(err)
			}
			return File{dir + "/a.env", Dotenv}
		}, []string{"a.env", "it is not a file"}},
		// Commands.
		inExec("echo A=TRIPWIRE; exit 3", Dotenv, "exit status 3"),
		inExec("echo A=TRIPWIRE; kill -9 $$", Dotenv, "signal: killed"),
		inExec("echo A=TRIPWIRE; sleep 60", Dotenv, "not done within 300ms"),
		inExec("echo A=TRIPWIRE; sleep 60 & wait", Dotenv, "not done within 300ms"),
		inExec("yes A=TRIPWIRE", Dotenv, "printed over 1048576 bytes"),
		inExec("printf '{\"A\": \"TRIPWI'", JSON, "line 1", "not a JSON object"),
		inExec("true", Dotenv, "it is empty"),
		inExec("no-such-command-at-all", Dotenv, "exit status 127", "it says:"),
		inExec("echo A=TRIPWIRE; echo oops TRIPWIRE >&2; echo plain >&2; exit 1", Dotenv, "is not shown", "plain"),
		// Merges.
		{"a name in two stores", func(dir string) Store {
			write(dir+"/d/A", tripwire)
			write(dir+"/a.env", "A="+tripwire)
			return Merged{Dir{Path: dir + "/d"}, File{dir + "/a.env", Dotenv}}
		}, []string{"A is in two stores"}},
		{"one of two is bad", func(dir string) Store {
			write(dir+"/d/A", tripwire)
			return Merged{Dir{Path: dir + "/d"}, File{dir + "/none.env", Dotenv}}
		}, []string{"none.env", "no such file"}},
	}
}

func TestBadStores(t *testing.T) {
	all := badStores()
	if len(all) < 40 {
		t.Errorf("only %d bad stores", len(all))
	}
	for _, c := range all {
		_, err := c.store(t.TempDir()).Read(context.Background())
		if err == nil {
			t.Errorf("%.60q: taken", c.name)
			continue
		}
		for _, want := range c.wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%.60q: %.300v\ndoes not say %q", c.name, err, want)
			}
		}
		// A command's own text is the operator's; all else is checked.
		if text := strings.ReplaceAll(err.Error(), c.name, ""); strings.Contains(strings.ReplaceAll(text, strings.ReplaceAll(c.name, `"`, `\"`), ""), tripwire) {
			t.Errorf("%.60q: the error holds content: %v", c.name, err)
		}
	}
}

// TestBadStoreKeepsLastGood gives a running sidecar each bad store in turn: the
// broker keeps what it had, and the error is said without content.
func TestBadStoreKeepsLastGood(t *testing.T) {
	h := newHost(t)
	h.write("GOOD", tripwire)
	turn := &turns{good: Dir{Path: h.store}}
	r := h.run(func(c *Config) { c.Store, c.Poll = turn, 5*time.Millisecond })
	h.has("GOOD")
	for _, c := range badStores() {
		turn.set(c.store(t.TempDir()))
		r.says(h, "the store cannot be used")
		turn.set(nil)
		r.says(h, "well again")
		r.log.reset()
	}
	if s := h.status(); s.Generation != 1 || s.SecretCount != 1 {
		t.Errorf("generation %d with %d secrets", s.Generation, s.SecretCount)
	}
}

func TestGoodFormats(t *testing.T) {
	texts := map[schema.SecretName]schema.Value{}
	for name, text := range map[schema.SecretName]string{
		"BARE": "a b", "HASH": "a#b", "COMMENT": "v", "EMPTY": "", "SINGLE": `a\n"$x`, "DOUBLE": "a\n\t\"\\$x`\\q",
		"LINES": "one\ntwo=2\n", "EXPORTED": "e", "EQUALS": "a=b=c", "ONLY_COMMENT": "",
		"ENDS": "one \t\ntwo \n", // white space before a line's end
	} {
		texts[name] = schema.Value{Text: text}
	}
	dotenv := "# all there is\r\n\nBARE= a b \nHASH=a#b\nCOMMENT=v # c\nEMPTY=\nSINGLE='a\\n\"$x' # c\n" +
		"DOUBLE=\"a\\n\\t\\\"\\\\\\$x\\`\\q\"\nLINES=\"one\ntwo=2\n\"\nexport EXPORTED=e\nEQUALS=a=b=c\r\nONLY_COMMENT= # none\n" +
		" export  ENDS = 'one \t\ntwo \n' \n"
	bundle := map[schema.SecretName]schema.Value{
		"A": {Text: "x\n"}, "aws": {Fields: map[schema.SecretName]string{"key": "k", "n": "5"}}, "N": {Text: "007"}, "B": {Text: "no"},
	}
	for _, c := range []struct {
		format Format
		text   string
		want   map[schema.SecretName]schema.Value
	}{
		{Dotenv, dotenv, texts},
		{Dotenv, "# none\n", map[schema.SecretName]schema.Value{}},
		{JSON, `{"A": "x\n", "aws": {"key": "k", "n": "5"}, "N": "007", "B": "no"}`, bundle},
		{JSON, "{}\n", map[schema.SecretName]schema.Value{}},
		{YAML, "A: |\n  x\naws: {key: k, n: 5}\nN: 007\nB: no\n", bundle},
		{YAML, "{}\n", map[schema.SecretName]schema.Value{}},
	} {
		got, err := c.format.parse([]byte(c.text))
		if diff := cmp.Diff(c.want, got.Secrets); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", c.format, err, diff)
		}
	}
	got, err := YAML.parse([]byte("A: !!binary |\n  /wA=\n"))
	if err != nil || string(got.SecretsB64["A"]) != "\xff\x00" {
		t.Errorf("binary YAML: %v", err)
	}
}

// FuzzFormats never panics, and its errors are short.
func FuzzFormats(f *testing.F) {
	for _, c := range badStores() {
		f.Add([]byte(c.name))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, format := range []Format{Dotenv, JSON, YAML} {
			set, err := format.parse(text)
			if err != nil {
				if len(err.Error()) > 300 {
					t.Errorf("%s: a long error: %v", format, err)
				}
				continue
			}
			for _, name := range namesOf(set) {
				if !schema.ValidSecretName(name) {
					t.Errorf("%s takes the name %q", format, name)
				}
			}
		}
	})
}
