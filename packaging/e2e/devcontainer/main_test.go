package devcontainer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/e2e/engine"
	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// shared contains the engine, the image, the commands, and the packed Feature that all
// tests use. prepareShared sets these fields once.
var shared struct {
	engine  *engine.Engine
	image   string
	bin     string // the directory that contains the keyhatch commands for the host
	feature string // the path of the Feature's tarball
}

const installCLIHint = "the Dev Container CLI: to install it, run npm install --prefix ~/.cache/keyhatch-ci/devcontainers @devcontainers/cli@0.89.0"

func TestMain(m *testing.M) {
	if os.Getenv("KEYHATCH_E2E") == "" {
		fmt.Println("skipped: to run these tests, use make e2e-devcontainer")
		return
	}
	os.Exit(func() int {
		err := prepareShared()
		if errors.Is(err, engine.ErrMissing) && !testenv.All() {
			fmt.Println("skipped:", err)
			return 0
		}
		if shared.engine != nil {
			defer shared.engine.Stop()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func prepareShared() (err error) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		return err
	}
	shared.bin = filepath.Join(root, "bin")
	shared.feature = filepath.Join(root, "dist", "devcontainer-feature-keyhatch.tgz")
	for _, artifact := range []string{filepath.Join(shared.bin, "keyhatchd"), shared.feature} {
		if _, err := os.Stat(artifact); err != nil {
			return fmt.Errorf("a file that the tests need is missing: %w: to build the file, run make e2e-devcontainer", err)
		}
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: the tests must run as root to start containers with another uid", engine.ErrMissing)
	}
	cli, err := findCLI()
	if err != nil {
		return err
	}
	if err := os.Setenv("PATH", shared.bin+":"+filepath.Dir(cli)+":"+os.Getenv("PATH")); err != nil {
		return err
	}
	if shared.engine, err = engine.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	shared.image, err = shared.engine.BaseImage(ctx, "busybox", "ca-certificates", "git")
	return err
}

func findCLI() (string, error) {
	if path, err := exec.LookPath("devcontainer"); err == nil {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "keyhatch-ci", "devcontainers", "node_modules", ".bin", "devcontainer")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: %s", engine.ErrMissing, installCLIHint)
	}
	return path, nil
}

// A host simulates a machine. It has a runtime directory and directories for projects.
// Call startBroker to start the host's broker.
type host struct {
	t          *testing.T
	dir        string
	runtimeDir string
	broker     *exec.Cmd
}

func newHost(t *testing.T) *host {
	// Use a short name for the directory, because the paths of sockets have a length limit.
	dir, err := os.MkdirTemp("", "khd")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: dir, runtimeDir: filepath.Join(dir, "run")}
	t.Cleanup(func() { h.stopBroker(os.Interrupt); os.RemoveAll(dir) })
	return h
}

// startBroker starts the broker and waits until the broker answers.
func (h *host) startBroker() {
	h.t.Helper()
	log, err := os.OpenFile(filepath.Join(h.dir, "keyhatchd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	h.broker = exec.Command(filepath.Join(shared.bin, "keyhatchd"), "--runtime-dir", h.runtimeDir, "--projects-dir", h.dir+"/projects.d", "--audit", "file:"+h.dir+"/audit")
	h.broker.Stderr = log
	if err := h.broker.Start(); err != nil {
		h.t.Fatal(err)
	}
	waitFor(h.t, func() error { _, err := h.keyhatchctl("status"); return err })
}

// stopBroker sends a signal to the broker and waits until the broker has exited.
func (h *host) stopBroker(sig os.Signal) {
	if h.broker != nil {
		h.broker.Process.Signal(sig)
		h.broker.Wait()
		h.broker = nil
	}
}

// command returns a command. The command's environment contains the addresses of the
// container engine and of the runtime directory.
func (h *host) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(h.t.Context(), name, args...)
	cmd.Env = append(shared.engine.Env(), "KEYHATCH_RUNTIME_DIR="+h.runtimeDir,
		// Turn off BuildKit, because only the classic builder can use images that are not
		// in a registry.
		"DOCKER_BUILDKIT=0", "XDG_CACHE_HOME="+filepath.Join(h.dir, "cache"))
	return cmd
}

// keyhatchctl runs the command keyhatchctl with the path of the host's admin socket.
func (h *host) keyhatchctl(args ...string) (string, error) {
	return output(h.command("keyhatchctl", append([]string{"--socket", h.runtimeDir + "/admin/admin.sock"}, args...)...))
}

func (h *host) mustKeyhatchctl(args ...string) string {
	h.t.Helper()
	out, err := h.keyhatchctl(args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// output runs a command and returns its standard output. If the command fails, the error
// contains the standard output and the standard error of the command.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// A container is a running dev container.
type container struct {
	host     *host
	id       string
	execUser string // the user for docker exec; "" means the image's user
}

// startContainer runs cmd, which must start a dev container. The last line of cmd's output
// must be the JSON result that devcontainer up prints.
func (h *host) startContainer(execUser string, cmd *exec.Cmd) *container {
	h.t.Helper()
	out, err := output(cmd)
	var result struct {
		ContainerID string `json:"containerId"`
		Outcome     string `json:"outcome"`
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if jsonErr := json.Unmarshal([]byte(lines[len(lines)-1]), &result); jsonErr == nil && result.ContainerID != "" {
		h.t.Cleanup(func() { removeContainer(result.ContainerID) })
	}
	if err != nil || result.Outcome != "success" {
		h.t.Fatalf("the container did not start: %v\n%s", err, out)
	}
	return &container{h, result.ContainerID, execUser}
}

// removeContainer removes a container. It also removes the image of the container, unless another
// container uses the image.
func removeContainer(id string) {
	ctx := context.Background()
	image, _ := shared.engine.Docker(ctx, "inspect", "--format", "{{.Image}}", id)
	shared.engine.Docker(ctx, "rm", "-f", "-v", id)
	shared.engine.Docker(ctx, "rmi", "-f", image)
}

// exec runs a command in the container with docker exec, without a shell profile and
// without a terminal.
func (c *container) exec(args ...string) (string, error) {
	dockerArgs := []string{"exec"}
	if c.execUser != "" {
		dockerArgs = append(dockerArgs, "-u", c.execUser)
	}
	return output(c.host.command("docker", append(append(dockerArgs, c.id), args...)...))
}

func (c *container) mustExec(args ...string) string {
	c.host.t.Helper()
	out, err := c.exec(args...)
	if err != nil {
		c.host.t.Fatal(err)
	}
	return out
}

// waitFor repeats check until check returns no error. If check still fails after one
// minute, the test fails.
func waitFor(t *testing.T, check func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("the check still fails after one minute: %v", err)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
