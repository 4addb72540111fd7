package cmd_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// These tests have the real git, docker, aws and kubectl ask keyhatch, each
// against a server of its own that wants what was pushed.

const token = "TRIPWIRE-token"

// A host is a broker with one project, and a home for the tools.
type host struct {
	t    *testing.T
	dir  string
	home string
	env  []string
}

// need skips a test for want of a tool, which is a failure in CI.
func need(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err == nil {
		return
	}
	if os.Getenv("KEYHATCH_TEST_ALL") != "" {
		t.Fatalf("there is no %s here", tool)
	}
	t.Skipf("there is no %s here", tool)
}

// newHost serves the project api with these helpers, and these secrets, given as
// JSON.
func newHost(t *testing.T, helpers, secrets string) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &host{t: t, dir: dir, home: filepath.Join(dir, "home")}
	h.write("links/README", "git and docker find their helpers by these names")
	for _, name := range []string{"git-credential-keyhatch", "docker-credential-keyhatch"} {
		if err := os.Symlink(filepath.Join(bin, "keyhatch"), filepath.Join(dir, "links", name)); err != nil {
			t.Fatal(err)
		}
	}
	h.env = []string{
		"PATH=" + bin + ":" + dir + "/links:" + os.Getenv("PATH"), "HOME=" + h.home, "LANG=C.UTF-8",
		"KEYHATCH_SOCKET=" + dir + "/run/projects/api/broker.sock",
		"GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "AWS_EC2_METADATA_DISABLED=true",
	}
	h.write("home/.keep", "")
	h.write("api/.keyhatch/manifest.yaml", "schema_version: 1\nproject: api\nsecrets: {T: , AWS: }\nhelpers:\n"+helpers)
	broker := exec.Command(filepath.Join(bin, "keyhatchd"), "--runtime-dir", dir+"/run", "--audit", "file:"+dir+"/audit", "--projects-dir", "")
	var log bytes.Buffer
	broker.Stderr = &log
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		broker.Process.Signal(os.Interrupt)
		broker.Wait()
		if strings.Contains(log.String(), "TRIPWIRE") {
			t.Error("a value is in the daemon's log")
		}
	})
	admin := dir + "/run/admin/admin.sock"
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(admin); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the broker does not come: %s", log.String())
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

// try runs a command outside of the project and returns all that it says.
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

// nothingOnDisk looks for the token in all that the tools left behind.
func (h *host) nothingOnDisk() {
	h.t.Helper()
	if out, err := exec.Command("grep", "-rlI", token, h.dir).Output(); err == nil {
		h.t.Errorf("the token is on the disk:\n%s", out)
	}
}

// A gitServer serves one repository to whoever has the token.
type gitServer struct {
	*httptest.Server
	mu    sync.Mutex
	asked int
}

func newGitServer(h *host, user string) *gitServer {
	h.t.Helper()
	h.run("", "git", "init", "--quiet", "--bare", h.dir+"/repos/x.git")
	h.run("", "git", "init", "--quiet", h.dir+"/work")
	h.run("", "git", "-C", h.dir+"/work", "-c", "user.name=n", "-c", "user.email=e@x", "commit", "--quiet", "--allow-empty", "-m", "m")
	h.run("", "git", "-C", h.dir+"/work", "push", "--quiet", h.dir+"/repos/x.git", "HEAD:refs/heads/main")
	exe := strings.TrimSpace(h.run("", "git", "--exec-path")) + "/git-http-backend"
	backend := &cgi.Handler{Path: exe, Env: []string{"GIT_PROJECT_ROOT=" + h.dir + "/repos", "GIT_HTTP_EXPORT_ALL=1"}}
	s := &gitServer{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		if name != user || password != token {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		s.mu.Lock()
		s.asked++
		s.mu.Unlock()
		backend.ServeHTTP(w, r)
	}))
	h.t.Cleanup(s.Close)
	return s
}

func (s *gitServer) wasAsked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked > 0
}

func (h *host) trust(s *httptest.Server) string {
	return h.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
}

func address(s *httptest.Server) string { return s.Listener.Addr().String() }

// TestGitClient lists and clones with a token that keyhatch answers, and sees
// that another helper, which keeps what it is given, is never given that one.
func TestGitClient(t *testing.T) {
	need(t, "git")
	for _, scheme := range []string{"https", "http"} {
		t.Run(scheme, func(t *testing.T) {
			// The address must be known before the manifest is.
			place := httptest.NewUnstartedServer(nil)
			listener := place.Listener
			host := listener.Addr().String()
			if scheme == "http" {
				host = "http://" + host
			}
			h := newHost(t, "  git: [{host: '"+host+"', secret: T}]\n", `{"T":"`+token+`"}`)
			s := newGitServer(h, "x-access-token")
			s.Listener.Close()
			s.Listener = listener
			if scheme == "https" {
				s.StartTLS()
				h.env = append(h.env, "GIT_SSL_CAINFO="+h.trust(s.Server))
			} else {
				s.Start()
			}
			log := h.dir + "/recorded"
			recorder := h.write("recorder", "#!/bin/sh\n{ echo \"$1\"; cat; } >>"+log+"\n")
			if err := os.Chmod(recorder, 0o755); err != nil {
				t.Fatal(err)
			}
			url := scheme + "://" + address(s.Server) + "/x.git"
			own := "credential." + strings.TrimSuffix(url, "/x.git")
			// The user has something for this host, in front of the other helper.
			h.run("", "git", "config", "--global", own+".helper", recorder)
			h.run("", "git", "config", "--global", "credential.helper", recorder)
			h.run("", "keyhatch", "credential", "install")
			h.run("", "keyhatch", "credential", "install") // twice is once
			if out := h.run("", "git", "ls-remote", url); !strings.Contains(out, "refs/heads/main") {
				t.Errorf("ls-remote: %s", out)
			}
			h.run("", "git", "clone", "--quiet", url, h.dir+"/clone")
			if !s.wasAsked() {
				t.Error("the server was never given the token")
			}
			if text, err := os.ReadFile(log); err == nil {
				t.Errorf("the other helper was asked or told:\n%s", text)
			}
			if values := h.run("", "git", "config", "--global", "--get-all", own+"/.helper"); strings.Count(values, "\n") != 2 || values[0] != '\n' {
				t.Errorf("the host's helpers are %q", values)
			}
			h.nothingOnDisk()

			// An editor that comes later puts its own behind ours, where it would be
			// told: then nothing is answered, until ours is installed again.
			config := filepath.Join(h.home, ".gitconfig")
			text, err := os.ReadFile(config)
			if err != nil {
				t.Fatal(err)
			}
			h.write("home/.gitconfig", string(text)+"[credential]\n\thelper = "+recorder+"\n")
			if out, err := h.try("", "git", "ls-remote", url); err == nil || !strings.Contains(out, "another helper too") {
				t.Errorf("%v: %s", err, out)
			}
			h.nothingOnDisk()
			h.run("", "keyhatch", "credential", "install")
			h.run("", "git", "ls-remote", url)
			if out, err := h.try("", "git", "-c", "credential.helper="+recorder, "ls-remote", url); err == nil {
				t.Errorf("beside a helper of the command line's: %s", out)
			}
			h.nothingOnDisk()

			// The control, which has git alone: a helper that answers as keyhatch
			// does, without the empty line, has the other told.
			os.Remove(log)
			h.run("", "git", "config", "--global", "--unset-all", own+"/.helper")
			h.run("", "git", "config", "--global", "--add", own+"/.helper", "!echo username=x-access-token; echo password="+token+"; true")
			h.run("", "git", "ls-remote", url)
			text, err = os.ReadFile(log)
			if err != nil || !strings.Contains(string(text), token) {
				t.Errorf("without the empty helper the other one is not told either, so its silence proves nothing: %s, %v", text, err)
			}

			// It is taken back, what the user had is there, and then nobody answers.
			h.run("", "git", "config", "--global", "--unset-all", own+"/.helper")
			h.run("", "keyhatch", "credential", "install")
			h.run("", "git", "ls-remote", url)
			h.run("", "keyhatch", "--socket", h.dir+"/none", "credential", "install", "--remove") // without a broker
			if values := h.run("", "git", "config", "--global", "--get-all", own+".helper"); values != recorder+"\n" {
				t.Errorf("the user's own helper is now %q", values)
			}
			h.run("", "git", "config", "--global", "--unset-all", "credential.helper")
			if out, err := h.try("", "git", "ls-remote", url); err == nil {
				t.Errorf("git still has the token: %s", out)
			}
		})
	}
}

// TestInstallKeepsDevices: git replaces the file that it configures, and a device
// would be replaced too.
func TestInstallKeepsDevices(t *testing.T) {
	need(t, "git")
	h := newHost(t, "  git: [{host: x, secret: T}]\n", `{"T":"`+token+`"}`)
	// A pipe stands for /dev/null, which everybody shares.
	device := filepath.Join(h.dir, "device")
	if err := syscall.Mkfifo(device, 0o600); err != nil {
		t.Fatal(err)
	}
	h.env = append(h.env, "GIT_CONFIG_GLOBAL="+device)
	for _, args := range [][]string{{}, {"--remove"}} {
		if out, err := h.try("", append([]string{"keyhatch", "credential", "install"}, args...)...); err == nil || !strings.Contains(out, "no file") {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	if info, err := os.Lstat(device); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("it is now %v, %v", info, err)
	}
}

// TestGitFallsThrough: a broker that is down is said, and prints nothing that git
// could take for an answer.
func TestGitFallsThrough(t *testing.T) {
	h := newHost(t, "  git: [{host: x, secret: T}]\n", `{"T":"`+token+`"}`)
	for query, want := range map[string]string{"protocol=https\nhost=x\n": "username=x-access-token\npassword=" + token + "\n", "protocol=https\nhost=y\n": ""} {
		if out := h.run(query, "git-credential-keyhatch", "get"); out != want {
			t.Errorf("%q: %q", query, out)
		}
	}
	for _, op := range []string{"store", "erase", "what-may-come"} {
		if out := h.run("protocol=https\nhost=x\npassword=p\n", "git-credential-keyhatch", op); out != "" {
			t.Errorf("%s: %q", op, out)
		}
	}
	h.env = append(h.env, "KEYHATCH_SOCKET="+h.dir+"/none")
	out, err := h.try("protocol=https\nhost=x\n", "git-credential-keyhatch", "get")
	if err == nil || strings.Contains(out, "username=") || !strings.Contains(out, "hint: ") {
		t.Errorf("%v, %s", err, out)
	}
}

// TestDockerClient has docker read a manifest from a registry that wants a login.
func TestDockerClient(t *testing.T) {
	need(t, "docker")
	const manifest = `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}`
	given := 0
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		if name, password, _ := r.BasicAuth(); name != "bot" || password != token {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		switch {
		case strings.Contains(r.URL.Path, "/manifests/"):
			given++
			w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
			fmt.Fprint(w, manifest)
		case strings.Contains(r.URL.Path, "/blobs/"):
			fmt.Fprint(w, "{}")
		}
	}))
	defer s.Close()
	h := newHost(t, "  docker: [{host: '"+address(s)+"', secret: T, username: bot}]\n", `{"T":"`+token+`"}`)
	h.env = append(h.env, "SSL_CERT_FILE="+h.trust(s))
	config := func(helper string) {
		text, err := json.Marshal(map[string]any{"credHelpers": map[string]string{address(s): helper}, "experimental": "enabled"})
		if err != nil {
			t.Fatal(err)
		}
		h.write("home/.docker/config.json", string(text))
	}
	config("keyhatch")
	out, err := h.try("", "docker", "manifest", "inspect", address(s)+"/x/y:latest")
	if err != nil || !strings.Contains(out, "schemaVersion") || given == 0 {
		t.Errorf("%v after %d manifests: %s", err, given, out)
	}
	h.nothingOnDisk()
	// A registry that the manifest does not name is asked without a login.
	if out, err := h.try("other.example\n", "docker-credential-keyhatch", "get"); err == nil || out != "credentials not found in native keychain\n" {
		t.Errorf("%v: %q", err, out)
	}
	if out, err := h.try(`{"ServerURL":"x","Username":"u","Secret":"s"}`, "docker-credential-keyhatch", "store"); err == nil || !strings.Contains(out, "sidecar") {
		t.Errorf("%v: %q", err, out)
	}
	if out := h.run("", "docker-credential-keyhatch", "list"); out != `{"`+address(s)+`":"bot"}`+"\n" {
		t.Errorf("%q", out)
	}
}

// TestAWSClient signs a request with keys of a bundle.
func TestAWSClient(t *testing.T) {
	need(t, "aws")
	var authorization, session string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization, session = r.Header.Get("Authorization"), r.Header.Get("X-Amz-Security-Token")
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprint(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>arn:aws:iam::1:user/brokered</Arn><UserId>U</UserId><Account>1</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`)
	}))
	defer s.Close()
	h := newHost(t, "  aws: AWS\n", `{"AWS":{"aws_access_key_id":"AKIABROKERED","aws_secret_access_key":"`+token+`","aws_session_token":"SESSION"}}`)
	h.write("home/.aws/config", "[default]\nregion = eu-central-1\ncredential_process = "+bin+"/keyhatch credential aws\n")
	if out := h.run("", "aws", "sts", "get-caller-identity", "--endpoint-url", s.URL); !strings.Contains(out, "user/brokered") {
		t.Errorf("%s", out)
	}
	if !strings.Contains(authorization, "Credential=AKIABROKERED/") || session != "SESSION" {
		t.Errorf("signed by %q, session %q", authorization, session)
	}
	h.nothingOnDisk()
}

// TestKubectlClient shows a token to a server that wants one.
func TestKubectlClient(t *testing.T) {
	need(t, "kubectl")
	given := ""
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given = r.Header.Get("Authorization")
		if given != "Bearer "+token {
			http.Error(w, "{}", http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"major":"1","minor":"30","gitVersion":"v1.30.0"}`)
	}))
	defer s.Close()
	h := newHost(t, "  kubectl: T\n", `{"T":"`+token+`"}`)
	config := h.write("home/config", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]
contexts: [{name: x, context: {cluster: c, user: me}}]
current-context: x
users:
- name: me
  user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: keyhatch, args: [credential, kubectl], interactiveMode: Never}}
`, s.URL, h.trust(s)))
	version := h.run("", "kubectl", "version", "--client", "-o", "json")
	if strings.Contains(version, `"minor": "20"`) { // before 1.22, which brought v1 of the plugins' API
		text, err := os.ReadFile(config)
		if err != nil {
			t.Fatal(err)
		}
		config = h.write("home/config", strings.NewReplacer("k8s.io/v1,", "k8s.io/v1beta1,", ", interactiveMode: Never", "").Replace(string(text)))
	}
	if out, err := h.try("", "kubectl", "--kubeconfig", config, "get", "--raw", "/version"); err != nil || !strings.Contains(out, "v1.30.0") {
		t.Errorf("%v: %s (the server was given %d bytes)", err, out, len(given))
	}
	h.nothingOnDisk()
}
