// Package engine is for the end-to-end tests: it gives them a container engine,
// and images made from Debian packages, so that no test needs a registry. It is
// for machines that belong to the tests: whoever reaches the engine is root.
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

// ErrMissing says what this machine lacks; a test skips with it as the reason.
var ErrMissing = errors.New("this machine lacks something")

// startTimeout is far more than an engine takes.
const startTimeout = time.Minute

// An Engine is a container engine that answers, from Start to Stop.
type Engine struct {
	// Host is its address, for DOCKER_HOST.
	Host string

	dir    string    // of an engine of our own: socket, data, log
	cmd    *exec.Cmd // of an engine of our own
	exited chan struct{}
}

// Start returns the engine that answers by the environment's means, or starts
// one that has its socket and data in a temporary directory. Its containers
// have no network: none of its host's settings is touched.
func Start() (*Engine, error) {
	if _, err := exec.LookPath("docker"); err != nil {
		return nil, fmt.Errorf("%w: docker (Debian: docker.io)", ErrMissing)
	}
	e := &Engine{Host: os.Getenv("DOCKER_HOST")}
	if e.Host == "" {
		e.Host = "unix:///var/run/docker.sock"
	}
	if e.isReady() {
		return e, nil
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		return nil, fmt.Errorf("%w: an engine that answers at %s, or dockerd (Debian: docker.io)", ErrMissing, e.Host)
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: no engine answers at %s, and starting one takes root", ErrMissing, e.Host)
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
	// A test that is killed leaves no engine behind.
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := e.cmd.Start(); err != nil {
		os.RemoveAll(e.dir)
		return nil, err
	}
	e.exited = make(chan struct{})
	go func() { e.cmd.Wait(); close(e.exited) }() // ended by Stop
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
		return nil, fmt.Errorf("the engine does not answer:\n%s", logText)
	}
	return e, nil
}

func (e *Engine) isReady() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := e.Docker(ctx, "version", "--format", "{{.Server.Version}}")
	return err == nil
}

// Stop ends an engine that Start started, and removes all that it held. The
// containers must have been removed.
func (e *Engine) Stop() {
	if e.cmd == nil {
		return
	}
	e.cmd.Process.Signal(os.Interrupt)
	<-e.exited
	os.RemoveAll(e.dir)
}

// Env is the environment for commands that use the engine.
func (e *Engine) Env() []string { return append(os.Environ(), "DOCKER_HOST="+e.Host) }

// Docker runs docker with these arguments and returns its standard output,
// without the last newline. The error holds what it said.
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

// cacheDir is where base images are kept between runs.
func cacheDir() (string, error) {
	cache, err := os.UserCacheDir() // XDG_CACHE_HOME, else ~/.cache
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "keyhatch-ci")
	return cache, os.MkdirAll(cache, 0o755)
}
