package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

const (
	projectCount = 20
	secretCount  = 2 * projectCount
)

// A host is a machine with a broker, a sidecar, and projects. All its files are in one
// directory.
type host struct {
	bin, dir  string
	problems  *problems
	processes *processes
	manager   *serviceManager
	secrets   *secrets
	projects  []*project
	broker    *service
	sidecar   *service
}

// A project may always get the secrets in names. It may get the optional secret only while its
// manifest contains this secret. It may never get the secret denied.
type project struct {
	name             string
	dir              string
	names            []schema.SecretName
	optional, denied schema.SecretName
	socket           string
	client           *client.Project

	mu      sync.Mutex // held during reload and checkOptional
	allowed bool       // the last approved manifest contains the optional secret
}

func secretName(number int) schema.SecretName {
	return schema.SecretName(fmt.Sprintf("%s_%02d", nameTripwire, number%secretCount))
}

func newHost(bin string, problems *problems) (*host, error) {
	dir, err := os.MkdirTemp("", "khsoak")
	if err != nil {
		return nil, err
	}
	h := &host{bin: bin, dir: dir, problems: problems, secrets: newSecrets(filepath.Join(dir, "store"))}
	for path, mode := range map[string]os.FileMode{"run": 0o755, "run/admin": 0o750, "store": 0o700, "home": 0o700, "tmp": 0o700, "log": 0o700, "projects": 0o755} {
		if err := os.MkdirAll(filepath.Join(dir, path), mode); err != nil {
			return nil, err
		}
	}
	if h.processes, err = newProcesses(); err != nil {
		return nil, err
	}
	if h.manager, err = newServiceManager(filepath.Join(dir, "notify"), h.adminSocket()); err != nil {
		return nil, err
	}
	for i := range secretCount {
		if err := h.secrets.replace(secretName(i)); err != nil {
			return nil, err
		}
	}
	for i := range projectCount {
		p := &project{
			name: fmt.Sprintf("p%02d", i), names: []schema.SecretName{secretName(i), secretName(i + 1), secretName(i + projectCount)},
			optional: secretName(i + 5), denied: secretName(i + 7),
		}
		p.dir = filepath.Join(dir, "projects", p.name)
		p.socket = filepath.Join(dir, "run", "projects", p.name, "broker.sock")
		p.client = client.NewProject(p.socket)
		if err := p.writeManifest(false); err != nil {
			return nil, err
		}
		h.projects = append(h.projects, p)
	}
	h.broker = h.newService("keyhatchd", "--runtime-dir", filepath.Join(dir, "run"), "--projects-dir", "", "--audit", "file:"+h.auditLog())
	// The sidecar reads the store at least every 30 seconds, even if no file event arrives.
	// Therefore checkSettled waits longer than 30 seconds for the last changes.
	h.sidecar = h.newService("keyhatch-sidecar", "run", "--store", "dir:"+h.secrets.dir, "--socket", h.adminSocket())
	return h, nil
}

func (h *host) adminSocket() string { return filepath.Join(h.dir, "run", "admin", "admin.sock") }
func (h *host) auditLog() string    { return filepath.Join(h.dir, "log", "audit.log") }

// command returns a command of keyhatch. Apart from PATH, the environment of the command
// contains only directories below the directory of the host, so that the command writes all
// its files there.
func (h *host) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(h.bin, name), args...)
	c.Dir = filepath.Join(h.dir, "home")
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.Dir, "TMPDIR=" + filepath.Join(h.dir, "tmp"), "XDG_RUNTIME_DIR=" + filepath.Join(h.dir, "tmp")}
	return c
}

// newService returns a service that appends its output to a file.
func (h *host) newService(name string, args ...string) *service {
	s := &service{name: name, problems: h.problems, wait: h.processes.wait, ended: make(chan struct{})}
	s.command = func() *exec.Cmd {
		c := h.command(name, args...)
		log, err := os.OpenFile(h.log(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			h.problems.add("cannot open a log: %v", err)
			return c
		}
		c.Stdout, c.Stderr = log, log
		return c
	}
	s.start = func(c *exec.Cmd) error {
		if log, ok := c.Stdout.(*os.File); ok {
			defer log.Close()
		}
		if s != h.broker {
			return h.processes.start(c)
		}
		return h.manager.start(c, h.processes.start)
	}
	return s
}

func (h *host) log(name string) string { return filepath.Join(h.dir, "log", name+".log") }

// start starts the services, registers all projects, and waits until they can get their
// secrets.
func (h *host) start() error {
	go h.broker.run()  // the method stop of the service ends this goroutine
	go h.sidecar.run() // the method stop of the service ends this goroutine
	for _, p := range h.projects {
		if err := h.control("register", "--yes", p.dir); err != nil {
			return err
		}
		if _, err := p.client.GetMany(context.Background(), p.names, 20*time.Second); err != nil {
			return fmt.Errorf("project %s does not get its secrets: %w", p.name, err)
		}
	}
	return nil
}

// brokerServes reports whether a broker runs and serves all projects.
func (h *host) brokerServes() bool { return h.broker.pid() != 0 && h.manager.isReady() }

func (h *host) stop() {
	h.sidecar.stop()
	h.broker.stop()
	h.manager.close()
}

// control runs keyhatchctl.
func (h *host) control(args ...string) error {
	c := h.command("keyhatchctl", append([]string{"--socket", h.adminSocket()}, args...)...)
	var output bytes.Buffer
	c.Stdout, c.Stderr = &output, &output
	if err := h.processes.run(c); err != nil {
		return fmt.Errorf("keyhatchctl %s: %w: %s", args[0], err, output.String())
	}
	return nil
}

func (p *project) writeManifest(withOptional bool) error {
	names := slices.Clone(p.names)
	if withOptional {
		names = append(names, p.optional)
	}
	text := "schema_version: 1\nproject: " + p.name + "\nsecrets:\n"
	for _, name := range names {
		text += "  " + string(name) + ":\n"
	}
	path := filepath.Join(p.dir, ".devcontainer", "keyhatch.yaml")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// reload adds the optional secret to the manifest, or removes it, and approves the manifest.
// Then it checks that the broker allows or denies this secret, as the manifest requires. The
// broker can be killed at any moment, so reload tries again until the approval succeeds.
func (h *host) reload(p *project) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.writeManifest(!p.allowed); err != nil {
		return err
	}
	err := waitFor(30*time.Second, func() error { return h.control("reload", "--yes", p.name) })
	if err != nil {
		return err
	}
	p.allowed = !p.allowed
	return h.checkOptional(p)
}

// checkOptional returns an error if the broker denies the optional secret although the manifest
// allows it, or allows the secret although the manifest does not. The caller must hold p.mu.
func (h *host) checkOptional(p *project) error {
	_, err := p.client.Get(context.Background(), p.optional, time.Minute)
	if denied := client.CodeOf(err) == schema.CodeDenied; denied == p.allowed {
		return fmt.Errorf("project %s: a get of the optional secret returned an unexpected result (allowed by the manifest: %v; error: %v)", p.name, p.allowed, err)
	}
	return nil
}

// waitFor calls check until check succeeds. If check still fails after the timeout, waitFor
// returns the last error of check.
func waitFor(timeout time.Duration, check func() error) error {
	for deadline := time.Now().Add(timeout); ; time.Sleep(50 * time.Millisecond) {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// checkSettled checks that each project gets the values in the store, that the broker allows
// or denies each secret optional correctly, and that keyhatch-sidecar health succeeds. It
// reports everything else as a problem.
func (h *host) checkSettled() {
	for _, p := range h.projects {
		p.mu.Lock()
		if err := h.checkOptional(p); err != nil {
			h.problems.add("%v", err)
		}
		p.mu.Unlock()
		if err := waitFor(40*time.Second, func() error { return h.matchesStore(p) }); err != nil {
			h.problems.add("project %s: %v", p.name, err)
		}
	}
	c := h.command("keyhatch-sidecar", "health", "--store", "dir:"+h.secrets.dir, "--socket", h.adminSocket())
	if output, err := c.CombinedOutput(); err != nil {
		h.problems.add("keyhatch-sidecar health: %v: %s", err, strings.TrimSpace(string(output)))
	}
}

// matchesStore returns an error if the project does not get exactly the values of the store.
func (h *host) matchesStore(p *project) error {
	got, err := p.client.GetMany(context.Background(), p.names, time.Minute)
	if err != nil {
		return err
	}
	for _, name := range p.names {
		stored, err := h.secrets.stored(name)
		if err != nil {
			return err
		}
		if value := got.Secrets[name].Value; value == nil || *value != stored {
			return fmt.Errorf("the broker does not have the newest value of %s", name)
		}
	}
	return nil
}
