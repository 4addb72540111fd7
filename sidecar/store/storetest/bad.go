// Package storetest creates stores with errors for the tests of the packages store and
// sidecar.
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

// Tripwire is a text inside the secrets of the test stores. A test fails if this text is
// in an error or a log message.
const Tripwire = "TRIPWIRE"

// WriteFile writes a file and creates the file's parent directories. It panics if it
// fails, so that a table of test cases can call WriteFile without a *testing.T.
func WriteFile(path, text string) {
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		panic(err)
	}
}

// A BadStore creates a store that cannot be read. The error of Read must contain each string
// in Wants. The error must contain no content of the store.
type BadStore struct {
	Name string
	// Create creates the files of the store in dir and returns the store. It panics if it
	// fails. dir must be an empty directory.
	Create func(dir string) store.Store
	Wants  []string
}

// badFile returns a BadStore that consists of a file with the given name and text.
func badFile(name, text string, wants ...string) BadStore {
	return BadStore{name + ": " + text, func(dir string) store.Store {
		path := filepath.Join(dir, name)
		WriteFile(path, text)
		return store.File{Path: path, Format: store.FormatOf(path)}
	}, append([]string{name}, wants...)}
}

// badCommand returns a BadStore that reads the output of a command.
func badCommand(command string, format store.Format, wants ...string) BadStore {
	return BadStore{command, func(string) store.Store {
		return store.Exec{Command: command, Format: format, Timeout: 300 * time.Millisecond}
	}, wants}
}

// BadStores returns at least one bad store for each rule that a store can violate.
func BadStores() []BadStore {
	big := "A=" + Tripwire + strings.Repeat("x", schema.MaxPush)
	return []BadStore{
		// These stores are dotenv files.
		badFile("a.env", "", "the input is empty"),
		badFile("a.env", "\n", "the input is empty"),
		badFile("a.env", " \r\n\t\n", "the input is empty"),
		badFile("a.env", "\ufeff", "the input is empty"),
		badFile("a.env", "\ufeff\n", "the input is empty"),
		badFile("a.env", "A=TRIPWIRE\rB=TRIPWIRE\nC=3\n", "line 1", "carriage return"),
		badFile("a.env", "B=1\r\nA=\"TRIPWIRE\rB=TRIPWIRE\"\n", "line 2", "carriage return"),
		badFile("a.env", "B=1\n# TRIPWIRE\rA=TRIPWIRE", "line 2", "carriage return"),
		badFile("a.env", "B=1\nA=TRIPWIRE\r", "line 2", "carriage return"),
		badFile("a.env", "A=TRIPWIRE\nTRIPWIRE\n", "line 2", "expected NAME=value"),
		badFile("a.env", "A=TRIPWIRE\nA=TRIPWIRE\n", "line 2", "the same name as line 1"),
		badFile("a.env", "A=TRIPWIRE\nTRIPWIRE b=TRIPWIRE\n", "line 2", "does not match"),
		badFile("a.env", "A=a\nTRIPWIRE=b c=d\n", "line 2", "the value contains another NAME="),
		badFile("a.env", "A=a\nTRIPWIRE='b\n", "line 2", "no closing quote"),
		badFile("a.env", "=TRIPWIRE\n", "line 1", "does not match"),
		badFile("a.env", "B=1\nA=\"TRIPWIRE\n\n", "line 2", "the value has no closing quote"),
		badFile("a.env", "A='TRIPWIRE", "line 1", "no closing quote"),
		badFile("a.env", "# c\nA='TRIPWIRE\nB=TRIPWIRE'\n", "line 2", "the quoted value contains line 3, which looks like another NAME=value"),
		badFile("a.env", "A=\"TRIPWIRE\n2\n export b=TRIPWIRE\"\n", "line 1", "the quoted value contains line 3"),
		badFile("a.env", "A=\"TRIPWIRE\nB = TRIPWIRE\nC = a\"\n", "line 1", "the quoted value contains line 2"),
		badFile("a.env", "A=\"TRIPWIRE\nmy-to.ken=TRIPWIRE\nC = a\"\n", "line 1", "the quoted value contains line 2"),
		badFile("a.env", "A=\"TRIPWIRE\n0B='TRIPWIRE'\n\"\n", "line 1", "the quoted value contains line 2"),
		badFile("a.env", "A=\"TRIPWIRE\nTRIPWIRE=\"\nC=1\n", "line 1", "the quoted value contains line 2"),
		badFile("a.env", "A='TRIPWIRE\nexport  B = \nC='\n", "line 1", "the quoted value contains line 2"),
		badFile("a.env", "A=\"TRIPWIRE\nB==TRIPWIRE\"\n", "line 1", "the quoted value contains line 2"),
		// These texts contain a wrapped base64 text.
		badFile("a.env", "B=1\nA="+strings.Repeat("TRIPWIRE", 8)+"\nTRIPWIREab==\n", "line 3", "base64"),
		badFile("a.env", "A="+strings.Repeat("TRIPWIRE", 8)+"\r\nTRIPWIREabc=\r\n", "line 2", "base64"),
		badFile("a.env", "A="+strings.Repeat("TRIPWIRE", 4)+"\nTRI=", "line 2", "base64"),
		badFile("a.env", "A="+strings.Repeat("TRIPWIRE_-", 7)+"TRIPWI\nTRIPWIRE-_a=\n", "line 2", "base64"),
		badFile("a.env", "TRIPWIRE==\n", "line 1", "base64"),
		badFile("a.env", "A="+strings.Repeat("TRIPWIRE", 8)+"\nTRI=   # TRIPWIRE\n", "line 2", "base64"),
		badFile("a.env", "A="+strings.Repeat("TRIPWIRE", 8)+"\nTR== # TRIPWIRE\n", "line 2", "base64"),
		badFile("a.env", "A="+strings.Repeat("TRIPWIRE", 8)+"\nTR==\"\n", "line 2", "base64"),
		badFile("a.env", "A="+strings.Repeat("TRIPWIRE", 8)+"\nTR==;\n", "line 2", "base64"),
		badFile("a.env", "A="+strings.Repeat("TRIPWIRE", 8)+"\nTRI=,\n", "line 2", "base64"),
		badFile("a.env", "A="+strings.Repeat("TRIPWIRE", 8)+"\\\nTRI=\\\n", "line 2", "base64"),
		badFile("a.env", "A=base64:"+strings.Repeat("TRIPWIRE", 8)+"\nTRI=\n", "line 2", "base64"),
		badFile("a.env", "A=data:x;base64,"+strings.Repeat("TRIPWIRE", 8)+"\nTRI=\n", "line 2", "base64"),
		badFile("a.env", "A={SSHA}"+strings.Repeat("TRIPWIRE", 8)+"\nTRI=\n", "line 2", "base64"),
		badFile("a.env", "A=AccountKey="+strings.Repeat("TRIPWIRE", 8)+"\nTRI=\n", "line 2", "base64"),
		badFile("a.env", "A=Basic "+strings.Repeat("TRIPWIRE", 8)+"\nTRI=\n", "line 2", "base64"),
		// These texts contain two variables in one line.
		badFile("a.env", "B=1\nexport A=TRIPWIRE C=TRIPWIRE\n", "line 2", "the value contains another NAME="),
		badFile("a.env", "A=TRIPWIRE; C=TRIPWIRE\n", "line 1", "the value contains another NAME="),
		badFile("a.env", "A=TRIPWIRE;export C=TRIPWIRE\n", "line 1", "the value contains another NAME="),
		badFile("a.env", "A=TRIPWIRE\vC=TRIPWIRE\n", "line 1", "the value contains another NAME="),
		badFile("a.env", "A=TRIPWIRE\u2028C=TRIPWIRE\n", "line 1", "the value contains another NAME="),
		badFile("a.env", "A=TRIPWIRE my-to.ken=\n", "line 1", "the value contains another NAME="),
		badFile("a.env", "A= C=TRIPWIRE\n", "line 1", "the value contains another NAME="),
		badFile("a.env", "B=1\nA=$'TRIPWIRE\\n'\n", "line 2", "the value begins with $'"),
		badFile("a.env", "B=1\nA=`TRIPWIRE\nC=TRIPWIRE`\n", "line 2", "the value begins with `"),
		badFile("a.env", "A=\"TRIPWIRE\"#TRIPWIRE\n", "line 1", "after the closing quote"),
		badFile("a.env", "B=1\nA=\"TRIPWIRE\nC=\"#TRIPWIRE\"\n", "line 2", "after the closing quote"),
		badFile("a.env", "A='TRIPWIRE\nC='#TRIPWIRE'\n", "line 1", "after the closing quote"),
		badFile("a.env", "A='TRIPWIRE' TRIPWIRE\n", "line 1", "after the closing quote"),
		badFile("a.env", "A='TRIPWIRE\n2\n3'\nB='x'y\n", "line 4", "after the closing quote"),
		badFile("a.env", "A=TRIPWIRE\x00\n", "line 1", "the value contains a NUL byte"),
		badFile("a.env", "A=TRIPWIRE\xff\n", "the text is not valid UTF-8"),
		badFile("a.env", "\x7fELF\x02\x01\x01\xf0TRIPWIRE", "the text is not valid UTF-8"),
		badFile("a.env", big, "1048576"),
		badFile("a.env", strings.Repeat("N", 129)+"=TRIPWIRE", "line 1", "does not match"),
		// These stores are JSON files.
		badFile("a.json", "", "the input is empty"),
		badFile("a.json", "null", "line 1", "not a JSON object"),
		badFile("a.json", "[\"TRIPWIRE\"]", "not a JSON object"),
		badFile("a.json", "{\n\"A\": \"TRIPWIRE\",\n\"A\": \"TRIPWIRE\"}", "line 3", "duplicate name"),
		badFile("a.json", "{\n\"A\": \"TRIPWIRE", "line 2", "not a JSON object"),
		badFile("a.json", "{\"A\": \"TRIPWIRE\"} TRIPWIRE", "data after"),
		badFile("a.json", "{\"A\": 5, \"B\": \"TRIPWIRE\"}", "line 1", "the value of A must be a string"),
		badFile("a.json", "{\"A\": null}", "the value of A must be a string"),
		badFile("a.json", "{\"A\": {\"x\": {\"y\": \"TRIPWIRE\"}}}", "field x of A is not a string"),
		badFile("a.json", "{\"A\": {\"x\": 5}}", "field x of A is not a string"),
		badFile("a.json", "{\"TRIPWIRE TRIPWIRE\": \"TRIPWIRE\"}", "does not match"),
		badFile("a.json", "{\"A\": \"TRIPWIRE\\ud800\"}", "not a JSON object"),
		badFile("a.json", "{\"A\": \"TRIPWIRE\xff\"}", "the text is not valid UTF-8"),
		badFile("a.json", "{\"A\": {\"TRIPWIRE !\": \"TRIPWIRE\"}}", "does not match"),
		// These stores are YAML files.
		badFile("a.yaml", "", "the input is empty"),
		badFile("a.yaml", "- TRIPWIRE\n", "line 1", "expected a mapping"),
		badFile("a.yaml", "TRIPWIRE\n", "line 1", "expected a mapping"),
		badFile("a.yaml", "A: TRIPWIRE\nA: TRIPWIRE\n", "line 2", "duplicate name A"),
		badFile("a.yaml", "A: \"TRIPWIRE\n", "invalid YAML"),
		badFile("a.yaml", "A: TRIPWIRE\n\tB: TRIPWIRE\n", "invalid YAML"),
		badFile("a.yaml", "A: &a TRIPWIRE\nB: *a\n", "line 1", "anchors, aliases"),
		badFile("a.yaml", "A: TRIPWIRE\nB: {<<: {x: TRIPWIRE}}\n", "line 2", "and merge keys"),
		badFile("a.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\n", "line 1", "anchors, aliases"),
		badFile("a.yaml", "A: [TRIPWIRE]\n", "line 1", "the value must be a string or a mapping of strings"),
		badFile("a.yaml", "A: {x: {y: TRIPWIRE}}\n", "line 1", "field x of A is not a string"),
		badFile("a.yaml", "A: TRIPWIRE\nB:\n", "line 2", "the value is missing"),
		badFile("a.yaml", "A: TRIPWIRE\n---\nB: TRIPWIRE\n", "more than one YAML document"),
		badFile("a.yaml", "TRIPWIRE x: TRIPWIRE\n", "line 1", "does not match"),
		badFile("a.yaml", "A: !!binary TRIPWIRE!\n", "line 1", "the value of A is not valid base64"),
		badFile("a.yaml", "A: {x: !!binary VFJJUFdJUkU=}\n", "line 1", "field x of A is binary"),
		badFile("a.yaml", "A: !mine TRIPWIRE\n", "line 1", "unknown YAML tag"),
		// In these YAML texts, the closing quote of A is missing.
		badFile("a.yaml", "A: \"TRIPWIRE\nB: TRIPWIRE\nC: \"#TRIPWIRE\"\n", "line 1", "after the closing quote"),
		badFile("a.yaml", "D: 1\nA: 'TRIPWIRE\nC: '#TRIPWIRE'\nB: TRIPWIRE\n", "line 2", "after the closing quote"),
		badFile("a.yaml", "A: 'TRIPWIRE\n# TRIPWIRE''\nB: TRIPWIRE # the servers' #1\n", "line 1", "the quoted value contains line 3, which looks like another NAME: value"),
		badFile("a.yaml", "\ufeff# ä\r\nA: \"TRIPWIRE\r\nB: TRIPWIRE\r\nC: \" #TRIPWIRE\"\r\n", "line 2", "the quoted value contains line 3"),
		badFile("a.yaml", "A: \"TRIPWIRE\\\"\nB: TRIPWIRE\"\n", "line 1", "the quoted value contains line 2"),
		badFile("a.yaml", "A: 'TRIPWIRE\n\"B\":\"TRIPWIRE\"'\n", "line 1", "the quoted value contains line 2"),
		badFile("a.yaml", "D: 'x'\naws:\n  x: !!str \"TRIPWIRE\n  y: TRIPWIRE\"\n", "line 3", "the quoted value contains line 4"),
		badFile("a.yaml", "{ä: {x: 'TRIPWIRE,\n ? my-to.ken : TRIPWIRE'}}\n", "line 1", "does not match"),
		badFile("a.yaml", "{D: \"ä'\", A: {x: 'TRIPWIRE,\n ? my-to.ken : TRIPWIRE'}}\n", "line 1", "the quoted value contains line 2"),
		badFile("a.yaml", "A: !!binary \"VFJJ\n B:\n UFdJUkU=\"\n", "line 1", "the quoted value contains line 2"),
		// The path of each of these stores does not exist or is not a regular file.
		{"no file", func(dir string) store.Store { return store.File{Path: dir + "/none.env", Format: store.Dotenv} }, []string{"none.env does not exist"}},
		{"a directory", func(dir string) store.Store { return store.File{Path: dir, Format: store.Dotenv} }, []string{"not a regular file"}},
		{"a FIFO", func(dir string) store.Store {
			if err := syscall.Mkfifo(dir+"/a.env", 0o600); err != nil {
				panic(err)
			}
			return store.File{Path: dir + "/a.env", Format: store.Dotenv}
		}, []string{"a.env", "not a regular file"}},
		// These stores are commands that fail or print invalid output.
		badCommand("echo A=TRIPWIRE; exit 3", store.Dotenv, "failed: exit status 3"),
		badCommand("echo A=TRIPWIRE; kill -9 $$", store.Dotenv, "signal: killed"),
		badCommand("echo A=TRIPWIRE; sleep 60", store.Dotenv, "timed out after 300ms"),
		badCommand("echo A=TRIPWIRE; sleep 60 & wait", store.Dotenv, "timed out after 300ms"),
		badCommand("yes A=TRIPWIRE", store.Dotenv, "output has more than 1048576 bytes"),
		badCommand("printf '{\"A\": \"TRIPWI'", store.JSON, "line 1", "not a JSON object"),
		badCommand("printf 'A: \"TRIPWIRE\\nB: TRIPWIRE\"\\n'", store.YAML, "line 1", "the quoted value contains line 2"),
		badCommand("true", store.Dotenv, "the input is empty"),
		badCommand("echo", store.Dotenv, "the input is empty"),
		badCommand("no-such-command-at-all", store.Dotenv, "exit status 127"),
		badCommand("echo A=TRIPWIRE; echo oops TRIPWIRE >&2; echo plain >&2; exit 1", store.Dotenv, "failed: exit status 1"),
		// These stores are Merged stores.
		{"a name in two stores", func(dir string) store.Store {
			WriteFile(dir+"/d/A", Tripwire)
			WriteFile(dir+"/a.env", "A="+Tripwire)
			return store.Merged{store.Dir{Path: dir + "/d"}, store.File{Path: dir + "/a.env", Format: store.Dotenv}}
		}, []string{"A is in two stores"}},
		{"one of two merged stores does not exist", func(dir string) store.Store {
			WriteFile(dir+"/d/A", Tripwire)
			return store.Merged{store.Dir{Path: dir + "/d"}, store.File{Path: dir + "/none.env", Format: store.Dotenv}}
		}, []string{"none.env does not exist"}},
	}
}
