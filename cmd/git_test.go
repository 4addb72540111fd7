package cmd_test

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// A gitServer serves one repository to clients that send the token as the password.
type gitServer struct {
	*httptest.Server
	mu            sync.Mutex
	authenticated int
}

func newGitServer(h *host, user string) *gitServer {
	h.t.Helper()
	h.run("", "git", "init", "--quiet", "--bare", h.dir+"/repos/x.git")
	h.run("", "git", "init", "--quiet", h.dir+"/work")
	h.run("", "git", "-C", h.dir+"/work", "-c", "user.name=n", "-c", "user.email=e@x", "commit", "--quiet", "--allow-empty", "-m", "m")
	h.run("", "git", "-C", h.dir+"/work", "push", "--quiet", h.dir+"/repos/x.git", "HEAD:refs/heads/main")
	backendPath := strings.TrimSpace(h.run("", "git", "--exec-path")) + "/git-http-backend"
	backend := &cgi.Handler{Path: backendPath, Env: []string{"GIT_PROJECT_ROOT=" + h.dir + "/repos", "GIT_HTTP_EXPORT_ALL=1"}}
	s := &gitServer{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		if name != user || password != token {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "authentication required", http.StatusUnauthorized)
			return
		}
		s.mu.Lock()
		s.authenticated++
		s.mu.Unlock()
		backend.ServeHTTP(w, r)
	}))
	h.t.Cleanup(s.Close)
	return s
}

func (s *gitServer) wasAuthenticated() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.authenticated > 0
}

// TestGitUsesTokenAndHidesItFromOtherHelpers lists and clones a repository. git must use the
// token from keyhatch. git must not pass the token to another credential helper, because that
// helper could store the token.
func TestGitUsesTokenAndHidesItFromOtherHelpers(t *testing.T) {
	testenv.RequireTool(t, "git")
	for _, scheme := range []string{"https", "http"} {
		t.Run(scheme, func(t *testing.T) {
			// The manifest contains the server's address, so the listener must exist before
			// the manifest is written.
			placeholder := httptest.NewUnstartedServer(nil)
			listener := placeholder.Listener
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
				h.env = append(h.env, "GIT_SSL_CAINFO="+h.writeCACert(s.Server))
			} else {
				s.Start()
			}
			recorderLog := h.dir + "/recorded"
			recorder := h.write("recorder", "#!/bin/sh\n{ echo \"$1\"; cat; } >>"+recorderLog+"\n")
			if err := os.Chmod(recorder, 0o755); err != nil {
				t.Fatal(err)
			}
			url := scheme + "://" + address(s.Server) + "/x.git"
			hostKey := "credential." + strings.TrimSuffix(url, "/x.git")
			// Before the installation, the user already has a helper for this host and a
			// helper for all hosts.
			h.run("", "git", "config", "--global", hostKey+".helper", recorder)
			h.run("", "git", "config", "--global", "credential.helper", recorder)
			h.run("", "keyhatch", "credential", "install")
			h.run("", "keyhatch", "credential", "install") // run install a second time, which must not change anything
			if out := h.run("", "git", "ls-remote", url); !strings.Contains(out, "refs/heads/main") {
				t.Errorf("ls-remote: %s", out)
			}
			h.run("", "git", "clone", "--quiet", url, h.dir+"/clone")
			if !s.wasAuthenticated() {
				t.Error("the server did not receive the token")
			}
			if text, err := os.ReadFile(recorderLog); err == nil {
				t.Errorf("git called the other helper:\n%s", text)
			}
			if values := h.run("", "git", "config", "--global", "--get-all", hostKey+"/.helper"); strings.Count(values, "\n") != 2 || values[0] != '\n' {
				t.Errorf("the helpers of the host are %q", values)
			}
			h.checkTokenNotOnDisk()

			// After the installation, an editor adds its own helper. git would also pass the
			// token to this helper. Therefore keyhatch must give git no token until the user runs
			// keyhatch credential install again.
			config := filepath.Join(h.home, ".gitconfig")
			text, err := os.ReadFile(config)
			if err != nil {
				t.Fatal(err)
			}
			h.write("home/.gitconfig", string(text)+"[credential]\n\thelper = "+recorder+"\n")
			if out, err := h.try("", "git", "ls-remote", url); err == nil || !strings.Contains(out, "also give the secret to another helper") {
				t.Errorf("%v: %s", err, out)
			}
			h.checkTokenNotOnDisk()
			h.run("", "keyhatch", "credential", "install")
			h.run("", "git", "ls-remote", url)
			if out, err := h.try("", "git", "-c", "credential.helper="+recorder, "ls-remote", url); err == nil {
				t.Errorf("with another helper on the command line, git got the token: %s", out)
			}
			h.checkTokenNotOnDisk()

			// Check that the test can detect a token that git passes to another helper: without
			// the empty helper line of keyhatch, git passes the token to the other helper.
			os.Remove(recorderLog)
			h.run("", "git", "config", "--global", "--unset-all", hostKey+"/.helper")
			h.run("", "git", "config", "--global", "--add", hostKey+"/.helper", "!echo username=x-access-token; echo password="+token+"; true")
			h.run("", "git", "ls-remote", url)
			text, err = os.ReadFile(recorderLog)
			if err != nil || !strings.Contains(string(text), token) {
				t.Errorf("git does not pass the token to the other helper even without the empty helper line, so the test is not valid: %s, %v", text, err)
			}

			// keyhatch credential install --remove must restore the user's configuration. After
			// that, git must get no credentials.
			h.run("", "git", "config", "--global", "--unset-all", hostKey+"/.helper")
			h.run("", "keyhatch", "credential", "install")
			h.run("", "git", "ls-remote", url)
			h.run("", "keyhatch", "--socket", h.dir+"/none", "credential", "install", "--remove") // --remove must work without a broker
			if values := h.run("", "git", "config", "--global", "--get-all", hostKey+".helper"); values != recorder+"\n" {
				t.Errorf("the user's helper is now %q", values)
			}
			h.run("", "git", "config", "--global", "--unset-all", "credential.helper")
			if out, err := h.try("", "git", "ls-remote", url); err == nil {
				t.Errorf("git still has the token: %s", out)
			}
		})
	}
}

// TestGitUsesTokenForDeclaredUsername lists a repository with a username in the URL, and then
// with a username in the settings of git. If the manifest or the secret contains another
// username, git must get no token, and keyhatch must print the reason. Otherwise, git must get
// the token.
func TestGitUsesTokenForDeclaredUsername(t *testing.T) {
	testenv.RequireTool(t, "git")
	for name, c := range map[string]struct {
		login   string // additional keys of the login in the manifest
		secret  string
		user    string // the username that the server accepts
		refused string // a part of the error that explains why git gets no token
	}{
		"no username in the manifest":     {"", `"` + token + `"`, "alice", ""},
		"the same username":               {", username: alice", `"` + token + `"`, "alice", ""},
		"the same username in the bundle": {"", `{"username":"alice","password":"` + token + `"}`, "alice", ""},
		"another username":                {", username: bob", `"` + token + `"`, "bob", "is not the username bob, which the manifest declares"},
		"another username in the bundle":  {", username: alice", `{"username":"bob","password":"` + token + `"}`, "bob", "is not the username in the secret T"},
	} {
		t.Run(name, func(t *testing.T) {
			placeholder := httptest.NewUnstartedServer(nil)
			listener := placeholder.Listener
			host := listener.Addr().String()
			h := newHost(t, "  git: [{host: 'http://"+host+"', secret: T"+c.login+"}]\n", `{"T":`+c.secret+`}`)
			s := newGitServer(h, c.user)
			s.Listener.Close()
			s.Listener = listener
			s.Start()
			h.run("", "keyhatch", "credential", "install")
			for _, args := range [][]string{
				{"ls-remote", "http://alice@" + host + "/x.git"},
				{"-c", "credential.username=alice", "ls-remote", "http://" + host + "/x.git"},
				{"-c", "credential.http://" + host + ".username=alice", "ls-remote", "http://" + host + "/x.git"},
			} {
				out, err := h.try("", append([]string{"git"}, args...)...)
				if c.refused == "" && (err != nil || !strings.Contains(out, "refs/heads/main")) {
					t.Errorf("%v: %v: %s", args, err, out)
				}
				if c.refused != "" && (err == nil || !strings.Contains(out, c.refused) || !strings.Contains(out, "hint: ")) {
					t.Errorf("%v: %v: %s", args, err, out)
				}
				if strings.Contains(out, token) {
					t.Errorf("%v: the output contains the token: %s", args, out)
				}
			}
			// If the URL and the settings of git contain no username, git must use the username
			// of the login in keyhatch.
			if c.user == "bob" {
				h.run("", "git", "ls-remote", "http://"+host+"/x.git")
			}
			h.checkTokenNotOnDisk()
		})
	}
}

// TestInstallRefusesNonRegularGitConfig runs keyhatch credential install with a git configuration
// file that is not a regular file, such as /dev/null. install must refuse this file, because git
// would replace the device with a regular file.
func TestInstallRefusesNonRegularGitConfig(t *testing.T) {
	testenv.RequireTool(t, "git")
	h := newHost(t, "  git: [{host: x, secret: T}]\n", `{"T":"`+token+`"}`)
	// The test uses a FIFO, because a defect in install would replace the real /dev/null, which
	// other processes need.
	fifo := filepath.Join(h.dir, "device")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	h.env = append(h.env, "GIT_CONFIG_GLOBAL="+fifo)
	for _, args := range [][]string{{}, {"--remove"}} {
		if out, err := h.try("", append([]string{"keyhatch", "credential", "install"}, args...)...); err == nil || !strings.Contains(out, "not a regular file") {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	if info, err := os.Lstat(fifo); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("the FIFO is now %v, %v", info, err)
	}
}

// TestGitHelperPrintsNothingOnFailure runs git's credential helper for a declared host, for
// another host, and with operations that the helper ignores. The helper must print credentials
// only for the declared host. If the broker is unreachable, the helper must report an error and
// print no credentials.
func TestGitHelperPrintsNothingOnFailure(t *testing.T) {
	h := newHost(t, "  git: [{host: x, secret: T}]\n", `{"T":"`+token+`"}`)
	for query, want := range map[string]string{"protocol=https\nhost=x\n": "username=x-access-token\npassword=" + token + "\n", "protocol=https\nhost=y\n": ""} {
		if out := h.run(query, "git-credential-keyhatch", "get"); out != want {
			t.Errorf("%q: %q", query, out)
		}
	}
	for _, op := range []string{"store", "erase", "future-operation"} {
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
