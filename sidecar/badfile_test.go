package sidecar

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TestBadFileKeepsOnlyItsOwnValue replaces the file of a secret with something that the sidecar
// cannot use. It checks that the broker keeps the old value of this secret, that changes
// and removals of other secrets are pushed, and that the sidecar logs the path once when the
// problem begins and once when it ends.
func TestBadFileKeepsOnlyItsOwnValue(t *testing.T) {
	for _, c := range []struct {
		name   string
		create func(path string) error
		reason string
	}{
		{"a dangling link", func(path string) error { return os.Symlink("nowhere", path) }, "the target of the symbolic link does not exist"},
		{"a link to itself", func(path string) error { return os.Symlink("BAD", path) }, "too many levels of symbolic links"},
		{"a FIFO", func(path string) error { return syscall.Mkfifo(path, 0o600) }, "not a regular file or a directory"},
		{"a file that is too large", func(path string) error {
			return os.WriteFile(path, []byte(tripwire+strings.Repeat("x", schema.MaxPush)), 0o600)
		}, "the maximum size of a push is 1048576 bytes"},
		{"a directory in a bundle", func(path string) error { return os.MkdirAll(path+"/deep", 0o700) }, "a bundle must contain only files"},
		{"a binary field", func(path string) error {
			os.Mkdir(path, 0o700)
			return os.WriteFile(path+"/deep", []byte(tripwire+"\xff"), 0o600)
		}, "a field of a bundle must be valid UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newTestHost(t)
			bad := h.store + "/BAD"
			h.writeSecret("BAD", tripwire+"old")
			h.writeSecret("B", tripwire+"old")
			h.writeSecret("C", tripwire)
			project := h.registerProject("BAD", "B", "C")
			r := h.runSidecar(nil)
			h.waitForNames("B", "BAD", "C")
			next := h.dir + "/next"
			if err := c.create(next); err != nil {
				t.Fatal(err)
			}
			// A removal of the file would remove the secret, so exchange the file in one step.
			if err := unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, bad, unix.RENAME_EXCHANGE); err != nil {
				t.Fatal(err)
			}
			h.setSecret("B", tripwire+"new")
			os.Remove(h.store + "/C")
			h.waitForValues(project, map[schema.SecretName]string{"BAD": tripwire + "old", "B": tripwire + "new"})
			r.waitForLog(h, bad)
			h.waitUntil("the broker knows that the store has a problem", func() bool { return h.status().StoreProblems == 1 })
			if got := h.health(); !strings.Contains(got, bad) || !strings.Contains(got, c.reason) {
				t.Errorf("CheckHealth returned %q, want the path and %q", got, c.reason)
			}
			h.setSecret("C", tripwire) // a second read must not log the path again
			h.waitForValues(project, map[schema.SecretName]string{"BAD": tripwire + "old", "B": tripwire + "new", "C": tripwire})
			os.RemoveAll(bad)
			h.setSecret("BAD", tripwire+"new")
			h.waitForValues(project, map[schema.SecretName]string{"BAD": tripwire + "new", "B": tripwire + "new", "C": tripwire})
			r.waitForLog(h, "the sidecar uses the file again, or the file was removed")
			h.waitUntil("the broker knows that the store has no problem", func() bool { return h.status().StoreProblems == 0 })
			if n := strings.Count(r.log.String(), "path="+bad); n != 2 {
				t.Errorf("the sidecar logged the path %d times, want 2:\n%s", n, r.log)
			}
			h.waitUntil("CheckHealth finds no problem", func() bool { return h.health() == "" })
			os.Remove(bad)
			h.waitForNames("B", "C")
		})
	}
}

// TestFileWithBadNameIsIgnored checks that a file whose name cannot be the name of a secret does
// not delay the other secrets. The sidecar must log the path, and the removal of the file.
func TestFileWithBadNameIsIgnored(t *testing.T) {
	h := newTestHost(t)
	for _, name := range []string{"A", "B", "bad name.txt", "bad dir/x", "aws/key", "aws/bad name"} {
		h.writeSecret(name, tripwire)
	}
	r := h.runSidecar(nil)
	h.waitForNames("A", "B", "aws")
	os.Remove(h.store + "/B")
	h.waitForNames("A", "aws")
	for _, name := range []string{"bad name.txt", "bad dir", "aws/bad name"} {
		r.waitForLog(h, h.store+"/"+name)
	}
	if got := h.health(); !strings.Contains(got, "bad") || !strings.Contains(got, schema.SecretNamePattern) {
		t.Errorf("CheckHealth returned %q, want the path and the rule for names", got)
	}
	for _, name := range []string{"bad name.txt", "bad dir", "aws/bad name"} {
		os.RemoveAll(h.store + "/" + name)
	}
	h.waitUntil("the sidecar logs the end of each problem", func() bool {
		return strings.Count(r.log.String(), "the file was removed") == 3
	})
	h.waitUntil("CheckHealth finds no problem", func() bool { return h.health() == "" })
}

// TestUnreadableFileKeepsOldValue removes the permissions of the file of a secret, the file of a
// field, and the directory of a bundle. It checks that the broker keeps their old values, that the
// removal of another secret is pushed, and that the sidecar logs the paths.
func TestUnreadableFileKeepsOldValue(t *testing.T) {
	if os.Geteuid() == 0 { // root can read every file
		runAsOtherUser(t)
		return
	}
	h := newTestHost(t)
	for _, name := range []string{"A", "B", "aws/key", "npm/key"} {
		h.writeSecret(name, tripwire)
	}
	r := h.runSidecar(nil)
	h.waitForNames("A", "B", "aws", "npm")
	for _, name := range []string{"A", "aws/key", "npm"} {
		if err := os.Chmod(h.store+"/"+name, 0); err != nil {
			t.Fatal(err)
		}
	}
	os.Remove(h.store + "/B")
	h.waitForNames("A", "aws", "npm")
	for _, name := range []string{"A", "aws/key", "npm"} {
		r.waitForLog(h, h.store+"/"+name)
	}
	if got := h.health(); !strings.Contains(got, "permission denied") {
		t.Errorf("CheckHealth returned %q", got)
	}
	os.Chmod(h.store+"/npm", 0o700) // so that the test can remove the directory
}

// runAsOtherUser runs the current test again in a child process that is not root.
func runAsOtherUser(t *testing.T) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	output, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, output)
	}
}

// TestStoreThatIsTooLargeNamesLargestFiles checks that the error for a store that is too large
// as a whole contains the paths of its largest files.
func TestStoreThatIsTooLargeNamesLargestFiles(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("SMALL", tripwire)
	h.writeSecret("aws/big", strings.Repeat("x", schema.MaxPush/2))
	h.writeSecret("BIG", strings.Repeat("x", schema.MaxPush/2))
	r := h.runSidecar(nil)
	r.waitForLog(h, "the largest files are")
	if log := r.log.String(); !strings.Contains(log, "BIG (524288 bytes)") || !strings.Contains(log, "aws/big (524288 bytes)") {
		t.Errorf("the log does not name the largest files:\n%s", log)
	}
	// The escapes of JSON make these secrets too large.
	h.writeSecret("aws/big", strings.Repeat("\x01", schema.MaxPush/4))
	h.writeSecret("BIG", strings.Repeat("\x01", schema.MaxPush/8))
	r.waitForLog(h, "the largest secrets are aws")
}

// TestEndOfProblemIsNotLoggedTooEarly makes a bundle unreadable while one of its fields is
// empty. It checks that the sidecar does not report the end of the problem with the field until
// the field has a value.
func TestEndOfProblemIsNotLoggedTooEarly(t *testing.T) {
	if os.Geteuid() == 0 { // root can read every directory
		runAsOtherUser(t)
		return
	}
	h := newTestHost(t)
	h.writeSecret("aws/key", tripwire)
	r := h.runSidecar(nil)
	h.waitForNames("aws")
	h.openForWriting("aws/key", "").Close()
	r.waitForLog(h, h.store+"/aws/key reason=")
	os.Chmod(h.store+"/aws", 0)
	r.waitForLog(h, h.store+"/aws reason=")
	os.Chmod(h.store+"/aws", 0o700)
	if strings.Contains(r.log.String(), "max_user_watches") {
		t.Errorf("the sidecar logged a wrong hint for a directory without permission:\n%s", r.log)
	}
	const ended = "the sidecar uses the file again, or the file was removed\" path="
	r.waitForLog(h, ended+h.store+"/aws\n")
	if strings.Contains(r.log.String(), ended+h.store+"/aws/key") {
		t.Errorf("the sidecar logged that it uses a field again that is still empty:\n%s", r.log)
	}
	h.setSecret("aws/key", tripwire)
	r.waitForLog(h, ended+h.store+"/aws/key\n")
}

// TestTruncatedPEMIsReportedOnce writes a key without its last line to the store, which a child process
// reads. The sidecar must push the value, because the owner may want this value, and must log one warning.
func TestTruncatedPEMIsReportedOnce(t *testing.T) {
	const warning = "a secret is probably a truncated PEM text"
	h := newTestHost(t)
	h.writeSecret("KEY", "-----BEGIN RSA PRIVATE KEY-----\n"+tripwire+"\n")
	r := h.runSidecar(func(c *Config) { c.Read = readInChild(h.store) })
	h.waitForNames("KEY")
	r.waitForLog(h, warning)
	h.writeSecret("A", tripwire)
	h.waitForNames("A", "KEY")
	if n := strings.Count(r.log.String(), warning); n != 1 || !strings.Contains(r.log.String(), "path="+h.store+"/KEY") {
		t.Errorf("the sidecar logged the warning %d times, want 1:\n%s", n, r.log)
	}
}
