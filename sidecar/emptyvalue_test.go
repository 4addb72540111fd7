package sidecar

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

// TestEmptyValueKeepsOldValue changes a value of a file, or of the output of a command, to an empty
// value. It checks that the broker keeps the old value of this secret and gets all other changes, that
// the sidecar logs the name once, and that CheckHealth fails. If the name is removed, the sidecar must
// remove the secret.
func TestEmptyValueKeepsOldValue(t *testing.T) {
	for _, c := range []struct {
		name, format string // format has one argument for each of the values of A and B
		source       func(path string) store.Store
	}{
		{"dotenv", "A=%s\nB=%s\n", func(path string) store.Store { return store.File{Path: path, Format: store.Dotenv} }},
		{"json", `{"A": "%s", "B": "%s"}`, func(path string) store.Store { return store.File{Path: path, Format: store.JSON} }},
		{"yaml", "A: '%s'\nB: '%s'\n", func(path string) store.Store { return store.File{Path: path, Format: store.YAML} }},
		{"exec", "A=\"%s\"\nB=%s\n", func(path string) store.Store {
			return store.Exec{Command: "cat " + path, Format: store.Dotenv, WatchPaths: []string{path}, Timeout: 10 * time.Second}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newTestHost(t)
			path := h.dir + "/conf/secrets"
			write := func(text string) { replaceFile(t, path, text) }
			write(fmt.Sprintf(c.format, tripwire+"a", tripwire+"b"))
			source := store.Merged{c.source(path), store.Dir{Path: h.store}}
			project := h.registerProject("A", "B")
			r := h.runSidecar(func(c *Config) { c.Store = source })
			h.waitForValues(project, map[schema.SecretName]string{"A": tripwire + "a", "B": tripwire + "b"})
			write(fmt.Sprintf(c.format, "", tripwire+"new"))
			h.waitForValues(project, map[schema.SecretName]string{"A": tripwire + "a", "B": tripwire + "new"})
			r.waitForLog(h, "a value in the store is empty")
			write(fmt.Sprintf(c.format, "", tripwire+"newer"))
			h.waitForValues(project, map[schema.SecretName]string{"A": tripwire + "a", "B": tripwire + "newer"})
			if n := strings.Count(r.log.String(), "a value in the store is empty"); n != 1 || !strings.Contains(r.log.String(), ": A\"") {
				t.Errorf("the sidecar logged the empty value %d times, want 1 time and the name:\n%s", n, r.log)
			}
			where := "A"
			if c.name == "dotenv" || c.name == "exec" {
				where = "line 1" // CheckHealth does not know the old names
			}
			if got := healthOf(h, source); !strings.Contains(got, ": "+where+": the value is empty") {
				t.Errorf("CheckHealth returned %q", got)
			}
			write(strings.NewReplacer("A", "B", "B", "C").Replace(fmt.Sprintf(c.format, "b", "c")))
			h.waitForNames("B", "C")
			r.waitForLog(h, "the value is not empty any more, or the secret was removed")
		})
	}
}

// healthOf returns the problems that CheckHealth finds with a store, or "".
func healthOf(h *testHost, source store.Store) string {
	_, problems := CheckHealth(context.Background(), readInProcess(source), h.server.AdminSocket(), "")
	if len(problems) == 0 {
		return ""
	}
	return errors.Join(problems...).Error()
}

// TestFirstReadIgnoresEmptyValue checks that an empty value is not pushed if there is no old value,
// and that a bundle with an empty field is not pushed either.
func TestFirstReadIgnoresEmptyValue(t *testing.T) {
	h := newTestHost(t)
	path := h.dir + "/conf/a.yaml"
	storetest.WriteFile(path, "A: ''\nB: x\naws: {key: x, secret: ''}\n")
	source := store.File{Path: path, Format: store.YAML}
	h.runSidecar(func(c *Config) { c.Store = source })
	h.waitForNames("B")
	if got := healthOf(h, source); !strings.Contains(got, path+": A: the value is empty") {
		t.Errorf("CheckHealth returned %q", got)
	}
}

// TestUnknownNameOfEmptyValueIsNotLogged reads a dotenv file and the output of a command in which the
// last line is a part of a value. The log and CheckHealth must contain the number of the line and not the
// line.
func TestUnknownNameOfEmptyValueIsNotLogged(t *testing.T) {
	h := newTestHost(t)
	path := h.dir + "/conf/a.env"
	storetest.WriteFile(path, "A=short-first-part\n"+tripwire+"=\n")
	source := store.Merged{store.File{Path: path, Format: store.Dotenv},
		store.Exec{Command: "echo '# c'; echo B=x; echo " + tripwire + "2=", Format: store.Dotenv, Timeout: 10 * time.Second}}
	r := h.runSidecar(func(c *Config) { c.Store = source })
	r.waitForLog(h, path+": line 2")
	r.waitForLog(h, "exec: line 3")
	health := healthOf(h, source)
	if !strings.Contains(health, path+": line 2: the value is empty") {
		t.Errorf("CheckHealth returned %q", health)
	}
	if strings.Contains(health+r.log.String(), tripwire) {
		t.Errorf("the line is in the log or in the result of CheckHealth:\n%s\n%s", health, r.log)
	}
}

// TestEmptyBundleKeepsOldValue changes a bundle to a bundle without fields. It checks that the broker keeps
// the old bundle, that the sidecar logs the name, and that CheckHealth fails.
func TestEmptyBundleKeepsOldValue(t *testing.T) {
	for name, source := range map[string]func(path string) store.Store{
		"json": func(path string) store.Store { return store.File{Path: path, Format: store.JSON} },
		"yaml": func(path string) store.Store { return store.File{Path: path, Format: store.YAML} },
		"exec": func(path string) store.Store {
			return store.Exec{Command: "cat " + path, Format: store.JSON, WatchPaths: []string{path}, Timeout: 10 * time.Second}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newTestHost(t)
			path := h.dir + "/conf/secrets"
			write := func(text string) { replaceFile(t, path, text) }
			write(`{"A": {"x": "` + tripwire + `"}, "B": "1", "C": "1"}`)
			project := h.registerProject("A", "B", "C")
			r := h.runSidecar(func(c *Config) { c.Store = source(path) })
			h.waitForNames("A", "B", "C")
			write(`{"A": {}, "B": "2", "C": {}}`)
			h.waitForValues(project, map[schema.SecretName]string{"A": `{"x":"` + tripwire + `"}`, "B": "2", "C": "1"})
			r.waitForLog(h, "a value in the store is empty")
			if got := healthOf(h, source(path)); !strings.Contains(got, ": A: the value is empty") {
				t.Errorf("CheckHealth returned %q", got)
			}
		})
	}
}

// replaceFile renames a new file with the text to path.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	storetest.WriteFile(path+".next", text)
	if err := os.Rename(path+".next", path); err != nil {
		t.Fatal(err)
	}
}
