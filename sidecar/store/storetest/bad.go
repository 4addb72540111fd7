// Package storetest has what the tests of store and of sidecar share: stores that
// cannot be read.
package storetest

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// Tripwire is in the content of every file of a bad store, and must be in no
// error.
const Tripwire = "TRIPWIRE"

// WriteFile writes a file and the directories above it. It panics if it cannot,
// so that tables of stores can use it.
func WriteFile(path, text string) {
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		panic(err)
	}
}

// A BadStore is a store that cannot be read, below a directory of its own. The
// error of its Read contains each of Wants, and nothing of any content.
type BadStore struct {
	Name  string
	Make  func(dir string) store.Store // creates its files, or panics
	Wants []string
}

// inFile is a file of this name with this text, behind a first good line.
func inFile(name, text string, wants ...string) BadStore {
	return BadStore{name + ": " + text, func(dir string) store.Store {
		path := filepath.Join(dir, name)
		WriteFile(path, text)
		return store.File{Path: path, Format: store.FormatOf(path)}
	}, append([]string{name}, wants...)}
}

func inExec(command string, format store.Format, wants ...string) BadStore {
	return BadStore{command, func(string) store.Store {
		return store.Exec{Command: command, Format: format, Timeout: 300 * time.Millisecond}
	}, wants}
}

// BadStores returns at least one store for every rule that a store can break.
func BadStores() []BadStore {
	big := "A=" + Tripwire + strings.Repeat("x", schema.MaxPush)
	return []BadStore{
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
		{"no file", func(dir string) store.Store { return store.File{Path: dir + "/none.env", Format: store.Dotenv} }, []string{"none.env", "no such file"}},
		{"a directory", func(dir string) store.Store { return store.File{Path: dir, Format: store.Dotenv} }, []string{"it is not a file"}},
		{"a FIFO", func(dir string) store.Store {
			if err := syscall.Mkfifo(dir+"/a.env", 0o600); err != nil {
				panic(err)
			}
			return store.File{Path: dir + "/a.env", Format: store.Dotenv}
		}, []string{"a.env", "it is not a file"}},
		// Commands.
		inExec("echo A=TRIPWIRE; exit 3", store.Dotenv, "exit status 3"),
		inExec("echo A=TRIPWIRE; kill -9 $$", store.Dotenv, "signal: killed"),
		inExec("echo A=TRIPWIRE; sleep 60", store.Dotenv, "not done within 300ms"),
		inExec("echo A=TRIPWIRE; sleep 60 & wait", store.Dotenv, "not done within 300ms"),
		inExec("yes A=TRIPWIRE", store.Dotenv, "printed over 1048576 bytes"),
		inExec("printf '{\"A\": \"TRIPWI'", store.JSON, "line 1", "not a JSON object"),
		inExec("true", store.Dotenv, "it is empty"),
		inExec("no-such-command-at-all", store.Dotenv, "exit status 127", "it says:"),
		inExec("echo A=TRIPWIRE; echo oops TRIPWIRE >&2; echo plain >&2; exit 1", store.Dotenv, "is not shown", "plain"),
		// Merges.
		{"a name in two stores", func(dir string) store.Store {
			WriteFile(dir+"/d/A", Tripwire)
			WriteFile(dir+"/a.env", "A="+Tripwire)
			return store.Merged{store.Dir{Path: dir + "/d"}, store.File{Path: dir + "/a.env", Format: store.Dotenv}}
		}, []string{"A is in two stores"}},
		{"one of two is bad", func(dir string) store.Store {
			WriteFile(dir+"/d/A", Tripwire)
			return store.Merged{store.Dir{Path: dir + "/d"}, store.File{Path: dir + "/none.env", Format: store.Dotenv}}
		}, []string{"none.env", "no such file"}},
	}
}
