package cmd_test

import (
	"bytes"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The tests of the credential helpers run the real git, docker, aws, and kubectl. Each of
// these tools sends a request to a server that requires the pushed token.

const token = "TRIPWIRE-token"

// A host is a test environment. It contains a broker with one project, and a home directory for
// the tools that use the project's credentials.
type host struct {
	t    *testing.T
	dir  string
	home string
	env  []string
}

// newHost starts a broker, registers the project api, and pushes secrets. helpers is the
// YAML text under helpers in the manifest. secrets is a JSON object.
func newHost(t *testing.T, helpers, secrets string) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh") // the path is short, because a socket path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &host{t: t, dir: dir, home: filepath.Join(dir, "home")}
	h.write("links/README", "git and docker find their helpers by these names")
	for _, name := range []string{"git-credential-keyhatch", "docker-credential-keyhatch"} {
		if err := os.Symlink(filepath.Join(binDir, "keyhatch"), filepath.Join(dir, "links", name)); err != nil {
			t.Fatal(err)
		}
	}
	h.env = []string{
		"PATH=" + binDir + ":" + dir + "/links:" + os.Getenv("PATH"), "HOME=" + h.home, "LANG=C.UTF-8",
		"KEYHATCH_SOCKET=" + dir + "/run/projects/api/broker.sock",
		"GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "AWS_EC2_METADATA_DISABLED=true",
	}
	h.write("home/.keep", "")
	h.write("api/.keyhatch/manifest.yaml", "schema_version: 1\nproject: api\nsecrets: {T: , AWS: }\nhelpers:\n"+helpers)
	broker := exec.Command(filepath.Join(binDir, "keyhatchd"), "--runtime-dir", dir+"/run", "--audit", "file:"+dir+"/audit", "--projects-dir", "")
	var log bytes.Buffer
	broker.Stderr = &log
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		broker.Process.Signal(os.Interrupt)
		broker.Wait()
		if strings.Contains(log.String(), "TRIPWIRE") {
			t.Error("the daemon's log contains a secret value")
		}
	})
	admin := dir + "/run/admin/admin.sock"
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(admin); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the broker did not start: %s", log.String())
		}
	}
	h.run("", "keyhatchctl", "--socket", admin, "register", dir+"/api")
	h.run(secrets, "keyhatchctl", "--socket", admin, "push", "-")
	return h
}

func (h *host) write(name, text string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// try runs a command in the home directory with the given standard input. It returns the output
// of the command, and the error of the command.
func (h *host) try(stdin string, args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	for _, entry := range h.env {
		if path, ok := strings.CutPrefix(entry, "PATH="); ok {
			for _, dir := range filepath.SplitList(path) {
				if info, err := os.Stat(filepath.Join(dir, args[0])); err == nil && !info.IsDir() {
					cmd = exec.Command(filepath.Join(dir, args[0]), args[1:]...)
					break
				}
			}
		}
	}
	cmd.Dir, cmd.Env, cmd.Stdin = h.home, h.env, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h *host) run(stdin string, args ...string) string {
	h.t.Helper()
	out, err := h.try(stdin, args...)
	if err != nil {
		h.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

// checkTokenNotOnDisk fails if a text file in the directory of h or in one of its subdirectories
// contains the token.
func (h *host) checkTokenNotOnDisk() {
	h.t.Helper()
	if out, err := exec.Command("grep", "-rlI", token, h.dir).Output(); err == nil {
		h.t.Errorf("these files contain the token:\n%s", out)
	}
}

func (h *host) writeCACert(s *httptest.Server) string {
	return h.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
}

func address(s *httptest.Server) string { return s.Listener.Addr().String() }
