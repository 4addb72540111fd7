package broker_test

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/audit"
	"golang.org/x/sys/unix"
)

var tokenLine = regexp.MustCompile(`^[0-9a-f]{64}\n$`)

// startWithTokenFile starts a broker with its own runtime directory, unless runtimeDir is set.
func startWithTokenFile(t *testing.T, runtimeDir, path string) (*broker.Server, error) {
	t.Helper()
	if runtimeDir == "" {
		dir, err := os.MkdirTemp("", "kh") // short, because the path of a socket is limited to 107 bytes
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		runtimeDir = dir + "/run"
	}
	log := slog.New(slog.DiscardHandler)
	events, err := audit.Open(audit.Config{Out: io.Discard, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(events.Close)
	s, err := broker.New(broker.Config{RuntimeDir: runtimeDir, AdminGID: -1, AdminTokenFile: path, Audit: events, Log: log, Version: "test"})
	if err == nil {
		t.Cleanup(s.Close)
	}
	return s, err
}

func mustStart(t *testing.T, runtimeDir, path string) *broker.Server {
	t.Helper()
	s, err := startWithTokenFile(t, runtimeDir, path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkTokenFile checks the content and the mode of the file, and returns its content. It also
// checks that there are no other files in the directory.
func checkTokenFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	info, statErr := os.Lstat(path)
	if err = errors.Join(err, statErr); err != nil {
		t.Fatal(err)
	}
	if !tokenLine.Match(content) || info.Mode() != 0o600 {
		t.Errorf("the file has the mode %v and %d bytes, want 0600 and 64 digits with a newline", info.Mode(), len(content))
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("the directory has the entries %v, error %v, want one", entries, err)
	}
	return string(content)
}

// TestTokenFile starts and stops brokers. Each broker must write a new token, and must remove the
// file when it stops. It must replace an empty file, and the file of a broker that crashed, even if
// the umask removes all permissions of a new file.
func TestTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	s := mustStart(t, "", path)
	first := checkTokenFile(t, path)
	s.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file after a stop: %v", err)
	}
	for _, left := range []string{first, ""} {
		if err := os.WriteFile(path, []byte(left), 0o666); err != nil {
			t.Fatal(err)
		}
		reader, err := os.Open(path) // like another user who has opened the old file
		if err != nil {
			t.Fatal(err)
		}
		old := unix.Umask(0o777)
		s, err = startWithTokenFile(t, "", path)
		unix.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		if checkTokenFile(t, path) == first {
			t.Error("the second token is the same as the first one")
		}
		written, _ := reader.Stat()
		if current, err := os.Lstat(path); err != nil || os.SameFile(written, current) {
			t.Error("the broker wrote to the old file instead of replacing it")
		}
		reader.Close()
		s.Close()
	}
}

// TestTokenFileOfOtherBrokerStays starts a second broker with the token file of a running broker.
// The start must fail. After the test has removed the file, the second broker can start and create
// its own file. The first broker must not remove this file when it stops.
func TestTokenFileOfOtherBrokerStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	first := mustStart(t, "", path)
	token := checkTokenFile(t, path)
	if _, err := startWithTokenFile(t, "", path); err == nil || !strings.Contains(err.Error(), "belongs to another keyhatchd") {
		t.Errorf("the error of a second broker with the same file is %v", err)
	}
	if checkTokenFile(t, path) != token {
		t.Error("the second broker changed the file")
	}
	if err := os.Remove(path); err != nil { // so that the second broker can start
		t.Fatal(err)
	}
	second := mustStart(t, "", path)
	token = checkTokenFile(t, path)
	first.Close()
	if checkTokenFile(t, path) != token {
		t.Error("the stop of the first broker changed the file of the second broker")
	}
	second.Close()
}

// TestOtherFilesAreNotReplaced starts brokers with paths at which a broker must not create its
// token file. Each start must fail, and must not change the file at the path. But a broker must be
// able to create its token file in the directory admin of the runtime directory.
func TestOtherFilesAreNotReplaced(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	digits := strings.Repeat("0", 64)
	token := write("token", digits+"\n")
	for name, target := range map[string]string{"link": token, "dangling": filepath.Join(dir, "none")} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	runtimeDir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtimeDir) })
	runtimeDir += "/run"
	mustStart(t, runtimeDir, "").Close()
	if err := os.Symlink(runtimeDir+"/projects", filepath.Join(dir, "projects")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		write("other", "a secret\n"):           "is not a token file",
		write("longer", digits+"\n"+digits):    "is not a token file",
		write("no newline", digits+"0"):        "is not a token file",
		filepath.Join(dir, "link"):             "is not a token file",
		filepath.Join(dir, "dangling"):         "is not a token file",
		filepath.Join(dir, "pipe"):             "is not a token file",
		filepath.Join(dir, "directory"):        "is not a token file",
		filepath.Join(dir, "none/token"):       "no such file or directory",
		filepath.Join(dir, "other/token"):      "not a directory",
		runtimeDir + "/token":                  "must not be in",
		runtimeDir + "/projects/token":         "must not be in",
		runtimeDir + "/devcontainers/token":    "must not be in",
		filepath.Join(dir, "projects/token"):   "must not be in",
		runtimeDir + "/admin/admin.sock":       "is not a token file",
		runtimeDir + "/admin/../projects/none": "must not be in",
	} {
		before, beforeErr := os.Lstat(path)
		_, err := startWithTokenFile(t, runtimeDir, path)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, want one that contains %q", path, err, want)
		}
		if after, afterErr := os.Lstat(path); (beforeErr == nil) != (afterErr == nil) || afterErr == nil && before.Mode() != after.Mode() {
			t.Errorf("%s was changed", path)
		}
	}
	if content, err := os.ReadFile(filepath.Join(dir, "other")); err != nil || string(content) != "a secret\n" {
		t.Errorf("the file contains %q, error %v", content, err)
	}
	s := mustStart(t, runtimeDir, runtimeDir+"/admin/token")
	if content, err := os.ReadFile(runtimeDir + "/admin/token"); err != nil || !tokenLine.Match(content) {
		t.Errorf("the token file in the runtime directory: error %v", err)
	}
	s.Close()
	mustStart(t, runtimeDir, "").Close() // the runtime directory must still be usable
}

// TestTemporaryTokenFilesAreRemoved starts a broker in a directory with the temporary files of
// killed brokers. The broker must remove only these files. It must not remove the locked temporary
// file of another broker that is starting.
func TestTemporaryTokenFilesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.Repeat("0", 64)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(".keyhatch-token-1")
	write(".keyhatch-token-2")
	write(".keyhatch-tokens")
	write("target")
	if err := os.Symlink("target", dir+"/.keyhatch-token-link"); err != nil {
		t.Fatal(err)
	}
	locked, err := os.Open(write(".keyhatch-token-locked"))
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	if err := unix.Flock(int(locked.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	mustStart(t, "", dir+"/token")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if want := []string{".keyhatch-token-link", ".keyhatch-token-locked", ".keyhatch-tokens", "target", "token"}; !slices.Equal(names, want) {
		t.Errorf("the directory contains %v, want %v", names, want)
	}
}
