package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func passDescriptors(s *setup) (int, string, error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	before := b.usage()
	v := startVictim(b.socket("web"))
	// Each attempt passes 50 descriptors.
	attempts, taken, err := b.attack(attackerUID, "descriptors", b.socket("evil"), strconv.Itoa(s.count(200)))
	gets, _, victimErr := v.finish()
	if err == nil {
		err = victimErr
	}
	threads := b.usage().threads
	if err == nil && threads > before.threads+16 {
		err = fmt.Errorf("%d threads before, %d afterwards", before.threads, threads)
	}
	if err == nil {
		err = b.waitForNoConnections()
	}
	if err == nil {
		err = b.recovered(before)
	}
	if took := b.stop(); err == nil && took > 1500*time.Millisecond && !s.small {
		err = fmt.Errorf("the stop took %v", took)
	}
	return 50 * attempts, fmt.Sprintf("%d gets; the kernel took %d descriptors", gets, 50*taken), err
}

func passHangingFiles(s *setup) (int, string, error) {
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		return 0, "skipped: needs root and /dev/fuse", nil
	}
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	before := b.usage()
	v := startVictim(b.socket("web"))
	attempts, taken, err := b.attack(0, "fuse", b.socket("evil"), strconv.Itoa(s.count(200)))
	gets, _, victimErr := v.finish()
	if err == nil {
		err = victimErr
	}
	if err == nil && attempts == 0 {
		err = errors.New("the attacker could pass no file")
	}
	if err == nil {
		err = b.waitForNoConnections()
	}
	if err == nil {
		err = b.recovered(before)
	}
	if took := b.stop(); err == nil && took > 1500*time.Millisecond && !s.small {
		err = fmt.Errorf("the stop took %v", took)
	}
	return attempts, fmt.Sprintf("%d gets; the kernel took %d descriptors", gets, taken), err
}

// blockDirectory makes every operation in the directory of project evil hang. A container
// does that by listing a large directory slowly: the kernel locks the directory meanwhile.
func blockDirectory(s *setup) (int, string, error) {
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		return 0, "skipped: needs root and /dev/fuse", nil
	}
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	dir, err := filepath.EvalSymlinks(filepath.Dir(b.socket("evil")))
	if err != nil {
		return 0, "", err
	}
	m, err := mountFUSE(dir)
	if err != nil {
		return 0, "skipped: cannot mount FUSE", nil
	}
	defer m.unmount()
	slowest, statuses := time.Duration(0), 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); statuses++ {
		began := time.Now()
		if _, err := b.connections(); err != nil { // asks for the status
			return statuses, "", err
		}
		slowest = max(slowest, time.Since(began))
	}
	err = b.get("web")
	if slowest > 500*time.Millisecond && !s.small {
		err = fmt.Errorf("a status took %v", slowest)
	}
	took := b.stop()
	if err == nil && took > 1500*time.Millisecond && !s.small {
		err = fmt.Errorf("the stop took %v", took)
	}
	return statuses, fmt.Sprintf("status after %v at most, stopped after %v", slowest.Round(time.Millisecond), took.Round(time.Millisecond)), err
}

// moveAnswers runs the broker in a memory cgroup, and measures how much of its memory an
// attacker can keep in pipes.
func moveAnswers(s *setup) (int, string, error) {
	group, usage, err := newMemoryGroup()
	if err != nil {
		return 0, "skipped: " + err.Error(), nil
	}
	defer os.Remove(group)
	b, err := startBroker(s, "sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, group)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	before := readNumber(usage)
	stop, err := b.startAttacker(attackerUID, "splice", b.socket("evil"), strconv.Itoa(s.count(200)))
	if err != nil {
		return 0, "", err
	}
	time.Sleep(8 * time.Second) // the attacker holds what it has
	grown := (readNumber(usage) - before) >> 10
	attempts, _ := stop()
	noticed := fmt.Sprintf("the broker's cgroup grew by %d KiB", grown)
	if grown > 4<<10 {
		return attempts, noticed, errors.New("too much memory")
	}
	return attempts, noticed, b.get("web")
}

// newMemoryGroup creates a memory cgroup (cgroups(7)), and returns its directory and the
// file with its usage.
func newMemoryGroup() (dir, usage string, err error) {
	for root, file := range map[string]string{"/sys/fs/cgroup/memory": "memory.usage_in_bytes", "/sys/fs/cgroup": "memory.current"} {
		dir := filepath.Join(root, fmt.Sprintf("keyhatch-attack-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue
		}
		usage := filepath.Join(dir, file)
		if _, err := os.Stat(usage); err == nil {
			return dir, usage, nil
		}
		os.Remove(dir)
	}
	return "", "", errors.New("cannot create a memory cgroup")
}

func readNumber(file string) int {
	text, _ := os.ReadFile(file)
	number, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return number
}

// startAttacker starts an attacker that holds what it has until stop is called.
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

func leaveAnswersUnread(s *setup) (int, string, error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	before := b.usage()
	kernelBefore := kernelMemory()
	v := startVictim(b.socket("web"))
	stop, err := b.startAttacker(attackerUID, "unread", b.socket("evil"), strconv.Itoa(s.count(5000)))
	if err != nil {
		return 0, "", err
	}
	time.Sleep(5 * time.Second) // the attacker connects all the time
	connections, err := b.connections()
	if err == nil && (connections == 0 || connections > 64) {
		err = fmt.Errorf("%d connections are open, want 1 to 64", connections)
	}
	kernel := kernelMemory() - kernelBefore
	attempts, _ := stop()
	gets, _, victimErr := v.finish()
	if err == nil {
		err = victimErr
	}
	if err == nil {
		err = b.waitForNoConnections()
	}
	if err == nil {
		err = b.recovered(before)
	}
	return attempts, fmt.Sprintf("%d gets, %d connections held, kernel memory %+d KiB", gets, connections, kernel), err
}

// kernelMemory returns the kernel's memory for small objects, in KiB. Unread data is a
// part of it.
func kernelMemory() (kilobytes int) {
	text, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Slab:" {
			kilobytes, _ = strconv.Atoi(fields[1])
		}
	}
	return kilobytes
}

// takeAllDescriptors connects to a broker that may have only 64 descriptors.
func takeAllDescriptors(s *setup) (int, string, error) {
	b, err := startBroker(s, "prlimit", "--nofile=64:64")
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	before := b.usage()
	v := startVictim(b.socket("web"))
	time.Sleep(100 * time.Millisecond) // the neighbour is connected
	stop, err := b.startAttacker(attackerUID, "hold", b.socket("evil"), "200")
	if err != nil {
		return 0, "", err
	}
	time.Sleep(min(s.flood, 30*time.Second))
	attempts, _ := stop()
	gets, _, err := v.finish()
	for _, project := range []string{"web", "evil"} {
		if err == nil {
			err = b.get(project) // over a new connection
		}
	}
	if err == nil {
		err = b.recovered(before)
	}
	return attempts, fmt.Sprintf("%d gets", gets), err
}

func waitAndLeave(s *setup) (int, string, error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	attempts, _, err := b.attack(attackerUID, "wait", b.socket("evil"), strconv.Itoa(s.count(200)))
	if err == nil {
		err = b.waitForNoConnections()
	}
	return attempts, "no connection stays", err
}

func deleteSocket(s *setup) (int, string, error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	slowest := time.Duration(0)
	for attempt, sabotage := range []func(string) error{
		os.Remove,
		func(path string) error { os.Remove(path); return os.Symlink("/etc/shadow", path) },
	} {
		if attempt > 0 {
			time.Sleep(2 * time.Second) // a second repair at once is delayed
		}
		if err := sabotage(b.socket("evil")); err != nil {
			return attempt, "", err
		}
		began := time.Now()
		if err := waitFor(5*time.Second, func() error { return b.get("evil") }); err != nil {
			return attempt, "", err
		}
		slowest = max(slowest, time.Since(began))
		if err := b.get("web"); err != nil {
			return attempt, "", err
		}
	}
	if slowest > 2*time.Second && !s.small {
		return 2, "", fmt.Errorf("it took %v", slowest)
	}
	return 2, fmt.Sprintf("back after %v", slowest.Round(10*time.Millisecond)), nil
}

func connectRefused(s *setup) (int, string, error) {
	if os.Geteuid() != 0 {
		return 0, "skipped: needs root", nil
	}
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	attempts, read, err := b.attack(refusedUID, "refusals", b.socket("evil"), strconv.Itoa(s.count(300)))
	if err == nil && read < attempts {
		err = fmt.Errorf("only %d of %d refused clients received the refusal", read, attempts)
	}
	return attempts, fmt.Sprintf("%d refusals read", read), err
}

func fillAuditLog(s *setup) (int, string, error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	seconds := int(min(s.flood, 20*time.Second) / time.Second)
	attempts, fetched, err := b.attack(attackerUID, "fetch", b.socket("evil"), strconv.Itoa(seconds))
	if err != nil {
		return 0, "", err
	}
	b.stop()
	lines := b.auditLines("secrets.fetched")
	counted := 0
	for _, line := range lines {
		var event struct{ Allowed int }
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			return attempts, "", err
		}
		counted += event.Allowed
	}
	noticed := fmt.Sprintf("%d fetches, %d events", fetched, len(lines))
	switch {
	case len(lines) > seconds+3:
		err = errors.New("too many events")
	case counted < fetched || counted > fetched+2: // an answer may be on its way at the end
		err = fmt.Errorf("the events count %d fetches of %d", counted, fetched)
	case len(b.auditLines(secret)) > 0:
		err = errors.New("the audit log contains a secret")
	}
	return attempts, noticed, err
}

func delayStop(s *setup) (int, string, error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	stop, err := b.startAttacker(attackerUID, "chatty", b.socket("evil"), "60")
	if err != nil {
		return 0, "", err
	}
	defer stop()
	if err := waitFor(5*time.Second, func() error {
		if n, err := b.connections(); err != nil || n < 30 {
			return fmt.Errorf("only %d connections, %v", n, err)
		}
		return nil
	}); err != nil {
		return 0, "", err
	}
	took := b.stop()
	if took > 1500*time.Millisecond && !s.small {
		err = errors.New("too slow")
	}
	return 60, fmt.Sprintf("stopped after %v", took.Round(time.Millisecond)), err
}

// shutDown measures the processor time that the broker uses for an attacker that only
// calls shutdown(2).
func shutDown(s *setup) (int, string, error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	const seconds = 30 // the first ones are not limited
	attempts, noticed := 0, ""
	for name, uid := range map[string]uint32{"allowed": attackerUID, "refused": refusedUID} {
		before := b.processorTime()
		_, calls, attackErr := b.attack(uid, "shutdown", b.socket("evil"), strconv.Itoa(seconds))
		attempts += calls
		share := 100 * float64(b.processorTime()-before) / float64(time.Duration(seconds)*time.Second)
		noticed += fmt.Sprintf("%.1f%% of a processor for a uid that is %s; ", share, name)
		if attackErr == nil && share > 10 && !s.small {
			attackErr = errors.New("too much processor time")
		}
		if err == nil {
			err = attackErr
		}
	}
	return attempts, strings.TrimSuffix(noticed, "; "), err
}

func lockDirectory(s *setup) (int, string, error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	b.stop()
	dir, err := os.Open(b.runtimeDir())
	if err != nil {
		return 0, "", err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return 0, "", err
	}
	if err := b.start(); err != nil {
		return 1, "", err
	}
	info, err := os.Stat(filepath.Join(b.runtimeDir(), "lock"))
	if err == nil && info.Mode().Perm() != 0o600 {
		err = fmt.Errorf("the mode of the lock file is %v", info.Mode())
	}
	return 1, "the broker starts", err
}

// fillFileSystem fills the file system of the runtime directory, and kills the broker.
func fillFileSystem(s *setup) (int, string, error) {
	if os.Geteuid() != 0 {
		return 0, "skipped: needs root", nil
	}
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	b.stop()
	if err := os.RemoveAll(b.runtimeDir()); err != nil {
		return 0, "", err
	}
	if err := os.Mkdir(b.runtimeDir(), 0o755); err != nil {
		return 0, "", err
	}
	if err := unix.Mount("keyhatch-attack", b.runtimeDir(), "tmpfs", 0, "size=256k,nr_inodes=64,mode=755"); err != nil {
		return 0, "skipped: cannot mount a tmpfs", nil
	}
	defer unix.Unmount(b.runtimeDir(), unix.MNT_DETACH)
	if err := b.start(); err != nil {
		return 0, "", err
	}
	evil := filepath.Dir(b.socket("evil"))
	if err := os.Chown(evil, attackerUID, attackerUID); err != nil { // as a container's root
		return 0, "", err
	}
	os.Chmod(filepath.Dir(evil), 0o711)
	stop, err := b.startAttacker(attackerUID, "fill", evil, "0")
	if err != nil {
		return 0, "", err
	}
	defer stop()
	time.Sleep(500 * time.Millisecond) // the file system is full
	// Served projects continue.
	for _, project := range []string{"web", "evil"} {
		if err := b.get(project); err != nil {
			return 0, "", fmt.Errorf("%s: %w", project, err)
		}
	}
	for range 3 {
		b.stop()
		os.Chown(evil, 0, 0) // the directory must belong to the broker
		if err := b.start(); err != nil {
			return 0, "", fmt.Errorf("restart: %w", err)
		}
		if err := b.get("web"); err != nil {
			return 0, "", err
		}
		os.Chown(evil, attackerUID, attackerUID)
	}
	_, created := stop()
	return created, "served, also after 3 restarts", nil
}

// hiddenPID runs the broker in a pid namespace, as a container does.
func hiddenPID(s *setup) (int, string, error) {
	if os.Geteuid() != 0 {
		return 0, "skipped: needs root", nil
	}
	if out, err := exec.Command("unshare", "--pid", "--fork", "true").CombinedOutput(); err != nil {
		return 0, "skipped: " + strings.TrimSpace(string(out)), nil
	}
	b, err := startBroker(s, "unshare", "--pid", "--fork", "--kill-child")
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	attempts, fetched, err := b.attack(attackerUID, "fetch", b.socket("evil"), "1")
	if err == nil && fetched == 0 {
		err = errors.New("a caller without a visible pid is refused")
	}
	_, refused, refusedErr := b.attack(refusedUID, "refusals", b.socket("evil"), "5")
	if err == nil {
		err = refusedErr
	}
	if err == nil && refused != 5 {
		err = errors.New("a refused uid was not refused")
	}
	b.cmd.Process.Signal(syscall.SIGTERM)
	for _, line := range b.auditLines("secrets.fetched") {
		if strings.Contains(line, "peer_pid") {
			err = errors.New("an event contains a pid that the broker cannot know")
		}
	}
	return attempts, fmt.Sprintf("%d fetches", fetched), err
}
