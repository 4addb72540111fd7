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
	Name   string
	Create func(dir string) store.Store // creates its files, or panics
	Wants  []string
}

// badFile is a store that is a file with this name and text.
func badFile(name, text string, wants ...string) BadStore {
	return BadStore{name + ": " + text, func(dir string) store.Store {
		path := filepath.Join(dir, name)
		WriteFile(path, text)
		return store.File{Path: path, Format: store.FormatOf(path)}
	}, append([]string{name}, wants...)}
}

// badCommand is a store that is the output of a command.
func badCommand(command string, format store.Format, wants ...string) BadStore {
	return BadStore{command, func(string) store.Store {
		return store.Exec{Command: command, Format: format, Timeout: 300 * time.Millisecond}
	}, wants}
}

// BadStores returns at least one store for every rule that a store can break.
func BadStores() []BadStore {
	big := "A=" + Tripwire + strings.Repeat("x", schema.MaxPush)
	return []BadStore{
		// dotenv
		badFile("a.env", "", "it is empty"),
		badFile("a.env", "A=TRIPWIRE\nTRIPWIRE\n", "line 2", "not NAME=value"),
		badFile("a.env", "A=TRIPWIRE\nA=TRIPWIRE\n", "line 2", "A stands twice"),
		badFile("a.env", "A=TRIPWIRE\nTRIPWIRE b=TRIPWIRE\n", "line 2", "does not match"),
		badFile("a.env", "=TRIPWIRE\n", "line 1", "does not match"),
		badFile("a.env", "B=1\nA=\"TRIPWIRE\n\n", "line 2", "the quote of A does not end"),
		badFile("a.env", "A='TRIPWIRE", "line 1", "does not end"),
		badFile("a.env", "A='TRIPWIRE' TRIPWIRE\n", "line 1", "behind the quote of A"),
		badFile("a.env", "A='TRIPWIRE\n2\n3'\nB='x'y\n", "line 4", "behind the quote of B"),
		badFile("a.env", "A=TRIPWIRE\x00\n", "line 1", "A holds a NUL"),
		badFile("a.env", "A=TRIPWIRE\xff\n", "not UTF-8"),
		badFile("a.env", "\x7fELF\x02\x01\x01\xf0TRIPWIRE", "not UTF-8"),
		badFile("a.env", big, "1048576"),
		badFile("a.env", strings.Repeat("N", 129)+"=TRIPWIRE", "line 1", "does not match"),
		// JSON
		badFile("a.json", "", "it is empty"),
		badFile("a.json", "null", "line 1", "not a JSON object"),
		badFile("a.json", "[\"TRIPWIRE\"]", "not a JSON object"),
		badFile("a.json", "{\n\"A\": \"TRIPWIRE\",\n\"A\": \"TRIPWIRE\"}", "line 3", "duplicate name"),
		badFile("a.json", "{\n\"A\": \"TRIPWIRE", "line 2", "not a JSON object"),
		badFile("a.json", "{\"A\": \"TRIPWIRE\"} TRIPWIRE", "data after"),
		badFile("a.json", "{\"A\": 5, \"B\": \"TRIPWIRE\"}", "line 1", "A is neither a string"),
		badFile("a.json", "{\"A\": null}", "A is neither a string"),
		badFile("a.json", "{\"A\": {\"x\": {\"y\": \"TRIPWIRE\"}}}", "field x of A is not a string"),
		badFile("a.json", "{\"A\": {\"x\": 5}}", "field x of A is not a string"),
		badFile("a.json", "{\"TRIPWIRE TRIPWIRE\": \"TRIPWIRE\"}", "does not match"),
		badFile("a.json", "{\"A\": \"TRIPWIRE\\ud800\"}", "not a JSON object"),
		badFile("a.json", "{\"A\": \"TRIPWIRE\xff\"}", "not UTF-8"),
		badFile("a.json", "{\"A\": {\"TRIPWIRE !\": \"TRIPWIRE\"}}", "does not match"),
		// YAML
		badFile("a.yaml", "", "it is empty"),
		badFile("a.yaml", "- TRIPWIRE\n", "line 1", "not a mapping"),
		badFile("a.yaml", "TRIPWIRE\n", "line 1", "not a mapping"),
		badFile("a.yaml", "A: TRIPWIRE\nA: TRIPWIRE\n", "line 2", "A stands twice"),
		badFile("a.yaml", "A: \"TRIPWIRE\n", "not valid YAML"),
		badFile("a.yaml", "A: TRIPWIRE\n\tB: TRIPWIRE\n", "not valid YAML"),
		badFile("a.yaml", "A: &a TRIPWIRE\nB: *a\n", "line 1", "anchors, aliases"),
		badFile("a.yaml", "A: TRIPWIRE\nB: {<<: {x: TRIPWIRE}}\n", "line 2", "merge keys"),
		badFile("a.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\n", "line 1", "anchors, aliases"),
		badFile("a.yaml", "A: [TRIPWIRE]\n", "line 1", "neither text nor a mapping"),
		badFile("a.yaml", "A: {x: {y: TRIPWIRE}}\n", "line 1", "neither text nor a mapping"),
		badFile("a.yaml", "A: TRIPWIRE\nB:\n", "line 2", "a value is missing"),
		badFile("a.yaml", "A: TRIPWIRE\n---\nB: TRIPWIRE\n", "more than one YAML document"),
		badFile("a.yaml", "TRIPWIRE x: TRIPWIRE\n", "line 1", "does not match"),
		badFile("a.yaml", "A: !!binary TRIPWIRE!\n", "line 1", "A is not base64"),
		badFile("a.yaml", "A: {x: !!binary VFJJUFdJUkU=}\n", "line 1", "field x of A is binary"),
		badFile("a.yaml", "A: !mine TRIPWIRE\n", "line 1", "a tag that is not known"),
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
		badCommand("echo A=TRIPWIRE; exit 3", store.Dotenv, "exit status 3"),
		badCommand("echo A=TRIPWIRE; kill -9 $$", store.Dotenv, "signal: killed"),
		badCommand("echo A=TRIPWIRE; sleep 60", store.Dotenv, "not done within 300ms"),
		badCommand("echo A=TRIPWIRE; sleep 60 & wait", store.Dotenv, "not done within 300ms"),
		badCommand("yes A=TRIPWIRE", store.Dotenv, "printed over 1048576 bytes"),
		badCommand("printf '{\"A\": \"TRIPWI'", store.JSON, "line 1", "not a JSON object"),
		badCommand("true", store.Dotenv, "it is empty"),
		badCommand("no-such-command-at-all", store.Dotenv, "exit status 127", "it says:"),
		badCommand("echo A=TRIPWIRE; echo oops TRIPWIRE >&2; echo plain >&2; exit 1", store.Dotenv, "is not shown", "plain"),
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
