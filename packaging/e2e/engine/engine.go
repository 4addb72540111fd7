// Package engine starts a container engine for the end-to-end tests. It also builds images
// from Debian packages, so that the tests do not need a registry.
//
// Use this package only on machines that are only used for tests. Every process that can
// access the engine's socket can become root.
package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ErrMissing means that this machine lacks something that a test needs. The test can then
// be skipped.
var ErrMissing = errors.New("missing requirement")

// startTimeout is the maximum time that an engine may need to start. An engine usually
// starts much faster.
const startTimeout = time.Minute

// An Engine is a running container engine.
type Engine struct {
	// Host is the engine's address, as in DOCKER_HOST.
	Host string

	// The following fields are set only if Start started the engine.
	dir    string // contains the engine's socket, data, and log
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has exited
}

// Start returns the engine at DOCKER_HOST, or at the default address if DOCKER_HOST is not
// set. If no engine answers at this address, Start starts an engine. The socket and the data
// of the started engine are in a temporary directory. Containers of the started engine have
// no network, so that the engine does not change the host's network settings.
func Start() (*Engine, error) {
	if _, err := exec.LookPath("docker"); err != nil {
		return nil, fmt.Errorf("%w: the command docker (Debian package docker.io)", ErrMissing)
	}
	e := &Engine{Host: os.Getenv("DOCKER_HOST")}
	if e.Host == "" {
		e.Host = "unix:///var/run/docker.sock"
	}
	if e.isReady() {
		return e, nil
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		return nil, fmt.Errorf("%w: a container engine at %s, or the command dockerd (Debian package docker.io)", ErrMissing, e.Host)
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: a container engine at %s; only root can start a new engine", ErrMissing, e.Host)
	}
	var err error
	if e.dir, err = os.MkdirTemp("", "khe"); err != nil {
		return nil, err
	}
	e.Host = "unix://" + e.dir + "/docker.sock"
	log, err := os.Create(e.dir + "/log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	e.cmd = exec.Command("dockerd", "--host", e.Host, "--data-root", e.dir+"/data", "--exec-root", e.dir+"/exec",
		"--pidfile", e.dir+"/pid", "--bridge=none", "--iptables=false", "--ip6tables=false")
	e.cmd.Stdout, e.cmd.Stderr = log, log
	// Let the kernel stop the engine when the test process ends, even if the test process
	// is killed.
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := e.cmd.Start(); err != nil {
		os.RemoveAll(e.dir)
		return nil, err
	}
	e.exited = make(chan struct{})
	go func() { e.cmd.Wait(); close(e.exited) }() // this goroutine ends when Stop stops the engine
	for deadline := time.Now().Add(startTimeout); !e.isReady(); {
		select {
		case <-e.exited:
		case <-time.After(50 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
		}
		logText, _ := os.ReadFile(e.dir + "/log")
		e.Stop()
		return nil, fmt.Errorf("the container engine did not start:\n%s", logText)
	}
	return e, nil
}

func (e *Engine) isReady() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := e.Docker(ctx, "version", "--format", "{{.Server.Version}}")
	return err == nil
}

// Stop stops the engine and removes the engine's data. If Start did not start the engine,
// Stop does nothing. Remove all containers first.
func (e *Engine) Stop() {
	if e.cmd == nil {
		return
	}
	e.cmd.Process.Signal(os.Interrupt)
	<-e.exited
	os.RemoveAll(e.dir)
}

// Env returns an environment for commands that use the engine. It contains DOCKER_HOST.
func (e *Engine) Env() []string { return append(os.Environ(), "DOCKER_HOST="+e.Host) }

// Docker runs docker with these arguments and returns docker's standard output without the
// final newline. If docker fails, the error contains docker's standard error.
func (e *Engine) Docker(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = e.Env()
	return output(cmd)
}

func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
		return strings.TrimSuffix(stdout.String(), "\n"), err
	}
	return strings.TrimSuffix(stdout.String(), "\n"), nil
}

// cacheDir returns the directory in which base images are stored between test runs.
func cacheDir() (string, error) {
	cache, err := os.UserCacheDir() // XDG_CACHE_HOME, or ~/.cache
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "keyhatch-ci")
	return cache, os.MkdirAll(cache, 0o755)
}
