package broker_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityNamesExistingTests checks that each command in SECURITY.md names existing tests
// or an existing target of the Makefile, and that each paragraph about a promise is followed by
// a command.
func TestSecurityNamesExistingTests(t *testing.T) {
	text, err := os.ReadFile("../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, promises, _ := strings.Cut(string(text), "\n## Promises\n")
	promises, _, found := strings.Cut(promises, "\n## ")
	if !found {
		t.Fatal("SECURITY.md has no section Promises")
	}
	_, promises, _ = strings.Cut(promises, "\n### ") // the introduction contains no promise
	command := regexp.MustCompile(`^    go test \./(\S+) -run '\^\(?([A-Za-z|]+)\)?\$'$`)
	tests := 0
	previous := ""
	isPromise := func(s string) bool { return s != "" && !strings.HasPrefix(s, "### ") && !strings.HasPrefix(s, "    ") }
	for paragraph := range strings.SplitSeq("### "+promises+"\n\n### end", "\n\n") {
		if isPromise(previous) && !strings.HasPrefix(paragraph, "    ") {
			t.Errorf("no command follows this promise: %s", previous)
		}
		previous = paragraph
		if !strings.HasPrefix(paragraph, "    ") {
			continue
		}
		for line := range strings.Lines(paragraph) {
			line = strings.TrimSuffix(line, "\n")
			if target, ok := strings.CutPrefix(line, "    make "); ok {
				if !strings.Contains(string(makefile), "\n"+target+":") {
					t.Errorf("the Makefile has no target %s", target)
				}
				continue
			}
			match := command.FindStringSubmatch(line)
			if match == nil {
				t.Errorf("this is not a command that the test knows: %s", line)
				continue
			}
			declarations := testDeclarations(t, match[1])
			for name := range strings.SplitSeq(match[2], "|") {
				tests++
				if !strings.Contains(declarations, "\nfunc "+name+"(t *testing.T)") {
					t.Errorf("package %s has no test %s", match[1], name)
				}
			}
		}
	}
	if tests < 50 {
		t.Errorf("SECURITY.md names only %d tests, want at least 50", tests)
	}
}

// testDeclarations returns the text of all test files of a package.
func testDeclarations(t *testing.T, directory string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", directory, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
