package broker_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestContributingNamesExistingFiles checks that every path of a file in CONTRIBUTING.md leads
// to an existing file. It ignores paths that contain the placeholder NAME, and import paths.
func TestContributingNamesExistingFiles(t *testing.T) {
	text, err := os.ReadFile("../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	// Short paths, such as project/project.go, are relative to the directory broker.
	paths := regexp.MustCompile("`([a-z./_-]+/[A-Za-z._-]+\\.[a-z]+)`").FindAllStringSubmatch(string(text), -1)
	if len(paths) < 30 {
		t.Fatalf("found only %d paths in CONTRIBUTING.md, want at least 30", len(paths))
	}
	for _, path := range paths {
		if strings.Contains(path[1], "NAME") || strings.Contains(path[1], "github.com") {
			continue
		}
		if _, err := os.Stat(filepath.Join("..", path[1])); err == nil {
			continue
		}
		if _, err := os.Stat(path[1]); err != nil {
			t.Errorf("CONTRIBUTING.md names %s, which does not exist", path[1])
		}
	}
}
