package cmd_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// TestForwardedAdminSocket uses the admin socket through a real sshd on the loopback address, as
// the README describes. ssh forwards the socket in both directions: from the client to the
// broker's host (-L), and from the broker's host to another machine (-R). keyhatchctl must work
// only with the token. After a crash of the broker, the test copies the new token, and the
// sidecar must push again. No token and no secret may be in a log, and no token in the command
// line or the environment of a process.
func TestForwardedAdminSocket(t *testing.T) {
	if _, err := os.Stat("/usr/sbin/sshd"); err != nil {
		testenv.RequireTool(t, "sshd")
	}
	testenv.RequireTool(t, "ssh")
	f := newForwarding(t)
	f.startBroker()
	f.startSSH()
	tokens := []string{f.copyToken()}
	for _, socket := range []string{f.path("local.sock"), f.path("remote.sock")} {
		output, err := f.command("keyhatchctl", "--socket", socket, "list").CombinedOutput()
		if err == nil || !strings.Contains(string(output), "use --admin-token-file with the token in "+f.path("token")) {
			t.Errorf("keyhatchctl without a token: error %v, output:\n%s", err, output)
		}
		if output, err := f.command("keyhatchctl", "--socket", socket, "--admin-token-file", f.path("copy"), "list").CombinedOutput(); err != nil {
			t.Errorf("keyhatchctl with the token: %v\n%s", err, output)
		}
	}
	f.write("store/NPM_TOKEN", "TRIPWIRE-npm")
	f.start("sidecar", "keyhatch-sidecar", "run", "--store", "dir:"+f.path("store"), "--socket", f.path("local.sock"), "--admin-token-file", f.path("copy"))
	f.waitForSecret(f.path("remote.sock"))

	broker := f.broker
	broker.Process.Kill()
	broker.Wait()
	f.startBroker()
	tokens = append(tokens, f.copyToken())
	f.waitForSecret(f.path("remote.sock"))
	if tokens[0] == tokens[1] {
		t.Error("the broker did not generate a new token")
	}
	f.checkNotVisible(append(tokens, "TRIPWIRE"))
}

// A forwarding is a broker whose admin socket ssh forwards.
type forwarding struct {
	t      *testing.T
	dir    string
	broker *exec.Cmd
	ssh    []string // the command-line options of ssh, and the host to which ssh connects
}

func newForwarding(t *testing.T) *forwarding {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh") // the path is short, because a socket path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &forwarding{t: t, dir: dir}
	for _, name := range []string{"store", "log"} {
		if err := os.Mkdir(f.path(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *forwarding) path(name string) string { return filepath.Join(f.dir, name) }

func (f *forwarding) write(name, content string) {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *forwarding) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	if path := filepath.Join(binDir, name); strings.HasPrefix(name, "keyhatch") {
		c = exec.Command(path, args...)
	}
	c.Env = append(os.Environ(), "HOME="+f.dir)
	return c
}

// start starts the program name, which runs until the end of the test. The program writes its
// output to the file logName in the directory log.
func (f *forwarding) start(logName, name string, args ...string) *exec.Cmd {
	f.t.Helper()
	log, err := os.OpenFile(f.path("log/"+logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer log.Close()
	c := f.command(name, args...)
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		c.Process.Signal(os.Interrupt)
		c.Wait()
	})
	return c
}

func (f *forwarding) startBroker() {
	f.t.Helper()
	f.broker = f.start("broker", "keyhatchd", "--runtime-dir", f.path("run"), "--projects-dir", "", "--audit", "stdout", "--admin-token-file", f.path("token"))
	f.waitUntil("the broker serves", func() bool {
		return f.command("keyhatchctl", "--socket", f.path("run/admin/admin.sock"), "--admin-token-file", f.path("token"), "list").Run() == nil
	})
}

// startSSH starts sshd on the loopback address, and starts ssh, which forwards the admin socket
// in both directions.
func (f *forwarding) startSSH() {
	f.t.Helper()
	for _, name := range []string{"host_key", "key"} {
		if output, err := f.command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f.path(name)).CombinedOutput(); err != nil {
			f.t.Fatalf("ssh-keygen: %v\n%s", err, output)
		}
	}
	current, err := user.Current()
	if err != nil {
		f.t.Fatal(err)
	}
	if current.Uid == "0" { // sshd needs this directory if it runs as root
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			f.t.Fatal(err)
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	port := fmt.Sprint(free.Addr().(*net.TCPAddr).Port)
	free.Close()
	public, err := os.ReadFile(f.path("key.pub"))
	if err != nil {
		f.t.Fatal(err)
	}
	hostKey, err := os.ReadFile(f.path("host_key.pub"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.write("authorized_keys", string(public))
	f.write("known_hosts", "[127.0.0.1]:"+port+" "+string(hostKey))
	f.write("sshd_config", strings.Join([]string{
		"ListenAddress 127.0.0.1", "Port " + port, "HostKey " + f.path("host_key"), "PidFile none", "UsePAM no",
		"AuthorizedKeysFile " + f.path("authorized_keys"), "StrictModes no", "PermitRootLogin prohibit-password", "",
	}, "\n"))
	sshd := "/usr/sbin/sshd" // sshd does not start without its absolute path
	if path, err := exec.LookPath("sshd"); err == nil {
		sshd = path
	}
	f.start("sshd", sshd, "-D", "-e", "-f", f.path("sshd_config"))
	f.waitUntil("sshd accepts connections", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	admin := f.path("run/admin/admin.sock")
	f.ssh = []string{
		"-F", "none", "-p", port, "-i", f.path("key"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "UserKnownHostsFile=" + f.path("known_hosts"), "-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes", current.Username + "@127.0.0.1",
	}
	f.start("ssh", "ssh", append([]string{"-N", "-L", f.path("local.sock") + ":" + admin, "-R", f.path("remote.sock") + ":" + admin}, f.ssh...)...)
	for _, name := range []string{"local.sock", "remote.sock"} {
		f.waitUntil("ssh forwards "+name, func() bool {
			c, err := net.Dial("unix", f.path(name))
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
}

// copyToken copies the token file with ssh, like the shell command in the README, and returns
// the token.
func (f *forwarding) copyToken() string {
	f.t.Helper()
	script := "umask 077; ssh \"$@\" cat " + f.path("token") + " >" + f.path("copy")
	if output, err := f.command("sh", append([]string{"-c", script, "sh"}, f.ssh...)...).CombinedOutput(); err != nil {
		f.t.Fatalf("%v\n%s", err, output)
	}
	token, err := os.ReadFile(f.path("copy"))
	if err != nil {
		f.t.Fatal(err)
	}
	return strings.TrimSpace(string(token))
}

func (f *forwarding) waitForSecret(socket string) {
	f.t.Helper()
	f.waitUntil("the broker has the secret of the sidecar", func() bool {
		output, err := f.command("keyhatchctl", "--socket", socket, "--admin-token-file", f.path("copy"), "list").Output()
		return err == nil && string(output) == "NPM_TOKEN\n"
	})
}

func (f *forwarding) waitUntil(what string, condition func() bool) {
	f.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			logs, _ := filepath.Glob(f.path("log/*"))
			for _, log := range logs {
				text, _ := os.ReadFile(log)
				f.t.Logf("%s:\n%s", log, text)
			}
			f.t.Fatalf("after 30 seconds, this is not true: %s", what)
		}
	}
}

// checkNotVisible fails if a log, or the command line or the environment of a process, contains
// one of the texts. It ignores TRIPWIRE outside the logs, because other tests can run at the same
// time.
func (f *forwarding) checkNotVisible(texts []string) {
	f.t.Helper()
	found := 0
	for _, pattern := range []string{f.path("log/*"), "/proc/[0-9]*/cmdline", "/proc/[0-9]*/environ"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				continue // this user cannot read the file, or the process has ended
			}
			if bytes.Contains(content, []byte(f.path("copy"))) {
				found++
			}
			for _, text := range texts {
				if text == "" || bytes.Contains(content, []byte(text)) && (strings.HasPrefix(pattern, f.dir) || text != "TRIPWIRE") {
					f.t.Errorf("%s contains a token or a secret", path)
				}
			}
		}
	}
	if found == 0 {
		f.t.Error("no command line contains the path of the token file, so the search proves nothing")
	}
	audit, err := os.ReadFile(f.path("log/broker"))
	if err != nil || !bytes.Contains(audit, []byte(`"auth.failed"`)) {
		f.t.Error("the log of the broker contains no auth.failed event, so the search proves nothing")
	}
}
