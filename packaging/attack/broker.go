package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/packaging/proc"
	"github.com/keyhatch/keyhatch/schema"
)

// The attackers run with these uids. attackerUID is allowed to use the sockets of both
// projects. refusedUID is not allowed to use them.
const (
	attackerUID = 12345
	refusedUID  = 12346
)

const secret = "TRIPWIRE-of-the-attack-suite"

// A broker is a running keyhatchd with two projects. The attacker uses the socket of project
// evil. The attacks must not affect project web.
type broker struct {
	setup *setup
	dir   string
	cmd   *exec.Cmd
	log   *bytes.Buffer
	ended chan struct{}
}

// startBroker starts a broker in a new directory. wrap is a command that starts the broker,
// for example unshare with its options.
func startBroker(s *setup, wrap ...string) (*broker, error) {
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		return nil, err
	}
	os.Chmod(dir, 0o755)
	b := &broker{setup: s, dir: dir}
	s.printStacks = b.printStacks
	return b, b.start(wrap...)
}

// start starts keyhatchd, pushes the secrets, and registers both projects.
func (b *broker) start(wrap ...string) error {
	admin, err := b.launch(wrap...)
	if err != nil {
		return err
	}
	defer admin.Close()
	for _, name := range []string{"evil", "web"} {
		if err := b.register(admin, name); err != nil {
			return err
		}
	}
	return nil
}

// launch starts keyhatchd and pushes the secrets. It returns a connection to the admin
// socket.
func (b *broker) launch(wrap ...string) (*client.Admin, error) {
	args := append(wrap, b.setup.keyhatchd, "--runtime-dir", b.runtimeDir(), "--projects-dir", "", "--audit", "file:"+b.auditLog())
	b.cmd, b.log, b.ended = exec.Command(args[0], args[1:]...), &bytes.Buffer{}, make(chan struct{})
	b.cmd.Stderr = b.log
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { b.cmd.Wait(); close(b.ended) }()
	var admin *client.Admin
	if err := waitFor(20*time.Second, func() (err error) {
		admin, err = client.DialAdmin(context.Background(), b.runtimeDir()+"/admin/admin.sock")
		return err
	}); err != nil {
		return nil, fmt.Errorf("the broker does not start: %w: %s", err, b.log)
	}
	line, err := wire.Encode(schema.PushRequest{Op: schema.OpPush, Secrets: map[schema.SecretName]schema.Value{
		"A": {Text: secret}, "BIG": {Text: strings.Repeat("x", 1000<<10)},
	}})
	if err == nil {
		_, err = admin.Push(context.Background(), line)
	}
	if err != nil {
		admin.Close()
	}
	return admin, err
}

func (b *broker) register(admin *client.Admin, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	manifest := "schema_version: 1\nproject: " + name + "\nsecrets: {A: , BIG: , MISSING: }\n"
	_, err := admin.Register(ctx, schema.RegisterRequest{
		Name: schema.ProjectName(name), ProjectPath: "/nowhere/" + name, Manifest: &manifest, AllowUIDs: []uint32{attackerUID},
	})
	if client.CodeOf(err) == schema.CodeProjectExists {
		return nil
	}
	if err == nil && os.Geteuid() == 0 {
		// A container reaches its project's directory through a mount. The attacker of this
		// test has no mount. So the test changes the mode of the directory `projects` from
		// 0700 to 0711, and the attacker can open paths in this directory.
		os.Chmod(filepath.Join(b.runtimeDir(), "projects"), 0o711)
	}
	return err
}

func (b *broker) runtimeDir() string { return filepath.Join(b.dir, "run") }
func (b *broker) auditLog() string   { return filepath.Join(b.dir, "audit.log") }

func (b *broker) socket(project string) string {
	return filepath.Join(b.runtimeDir(), "projects", project, "broker.sock")
}

// stop ends the broker and returns how long the broker took to end. After 30 seconds, it kills
// the broker.
func (b *broker) stop() time.Duration {
	began := time.Now()
	b.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-b.ended:
	case <-time.After(30 * time.Second):
		b.cmd.Process.Kill()
		<-b.ended
	}
	return time.Since(began)
}

// printStacks ends the broker and prints its log with the stacks of its goroutines.
func (b *broker) printStacks() {
	b.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-b.ended:
		fmt.Fprintf(os.Stderr, "the broker:\n%s\n", b.log)
	case <-time.After(10 * time.Second):
		fmt.Fprintln(os.Stderr, "the broker does not end")
	}
}

// remove stops the broker and deletes its directory.
func (b *broker) remove() {
	b.stop()
	os.RemoveAll(b.dir)
}

// usage returns the resources that the broker uses. If the broker has ended, they are 0.
func (b *broker) usage() proc.Usage {
	u, _ := proc.Read(b.cmd.Process.Pid)
	return u
}

// processorTime returns the processor time that the broker has used (proc_pid_stat(5)). The
// kernel counts this time in units of 10 ms.
func (b *broker) processorTime() time.Duration {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.cmd.Process.Pid))
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// recovered waits until the broker uses about as many resources as before the attack. The
// broker may use 16 more threads, 4 more file descriptors, and 16 MiB more memory, because the
// Go runtime does not release all threads and memory. recovered returns an error if the broker
// has ended, or if the broker uses too many resources even after five seconds.
func (b *broker) recovered(before proc.Usage) error {
	select {
	case <-b.ended:
		return fmt.Errorf("the broker ended: %s", b.log)
	default:
	}
	return waitFor(5*time.Second, func() error {
		after := b.usage()
		if after.Threads > before.Threads+16 || after.Descriptors > before.Descriptors+4 || after.Kilobytes > before.Kilobytes+16<<10 {
			return exceeds("the broker used %+v before the attack, and %+v afterwards", before, after)
		}
		return nil
	})
}

// connections returns the number of connections of project evil.
func (b *broker) connections() (int, error) {
	admin, err := client.DialAdmin(context.Background(), b.runtimeDir()+"/admin/admin.sock")
	if err != nil {
		return 0, err
	}
	defer admin.Close()
	status, err := admin.Status(context.Background())
	for _, p := range status.Projects {
		if p.Name == "evil" {
			return p.Connections, err
		}
	}
	return 0, err
}

func (b *broker) waitForNoConnections() error {
	return waitFor(5*time.Second, func() error {
		n, err := b.connections()
		if err == nil && n > 0 {
			err = fmt.Errorf("the broker still counts %d connections of the attacker", n)
		}
		return err
	})
}

// attacker returns a command that runs this program as the attacker. Some attacks run until
// the command's standard input is closed.
func (b *broker) attacker(uid uint32, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, append([]string{"as-attacker"}, args...)...)
	cmd.Stderr = os.Stderr
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	return cmd, nil
}

// attack runs an attacker until it ends. It returns the number of attempts and the number of
// successful attempts, which the attacker has printed.
func (b *broker) attack(uid uint32, args ...string) (attempts, succeeded int, err error) {
	cmd, err := b.attacker(uid, args...)
	if err != nil {
		return 0, 0, err
	}
	out, err := cmd.Output()
	if err != nil {
		return 0, 0, fmt.Errorf("running the attacker: %w", err)
	}
	_, err = fmt.Sscan(string(out), &attempts, &succeeded)
	return attempts, succeeded, err
}

// startAttacker starts an attacker that does not release its resources until stop is called.
func (b *broker) startAttacker(uid uint32, args ...string) (stop func() (attempts, succeeded int), err error) {
	cmd, err := b.attacker(uid, args...)
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() (attempts, succeeded int) {
		in.Close()
		cmd.Wait()
		fmt.Sscan(out.String(), &attempts, &succeeded)
		return attempts, succeeded
	}, nil
}

// get fetches secret A over a new connection to a project's socket.
func (b *broker) get(project string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	answer, err := client.NewProject(b.socket(project)).Get(ctx, "A", 0)
	if err == nil && (answer.Value == nil || *answer.Value != secret) {
		err = errors.New("the project got a wrong value")
	}
	return err
}

// auditLines returns the lines of the audit log that contain a text.
func (b *broker) auditLines(text string) (lines []string) {
	file, err := os.Open(b.auditLog())
	if err != nil {
		return nil
	}
	defer file.Close()
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		if strings.Contains(scanner.Text(), text) {
			lines = append(lines, scanner.Text())
		}
	}
	return lines
}

// waitFor repeats a check until the check succeeds. If the check still fails after the
// timeout, waitFor returns the error of the check.
func waitFor(timeout time.Duration, check func() error) error {
	for end := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
