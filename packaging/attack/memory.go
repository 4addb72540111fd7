package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// moveAnswers runs the broker in a memory cgroup. It measures how much the memory of this
// cgroup grows while an attacker moves answers into pipes. The memory may grow by at most 16
// MiB.
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
	time.Sleep(8 * time.Second) // the attacker fills its pipes in this time
	grown := (readNumber(usage) - before) >> 10
	attempts, _ := stop()
	noticed := fmt.Sprintf("the broker's cgroup grew by %d KiB", grown)
	if grown > 16<<10 {
		return attempts, noticed, errors.New("the attack increased the memory of the broker's cgroup by more than 16 MiB")
	}
	return attempts, noticed, b.get("web")
}

// newMemoryGroup creates a memory cgroup (cgroups(7)). It returns the directory of the
// cgroup, and the file that contains the memory usage of the cgroup.
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

// leaveAnswersUnread starts an attacker that opens many connections and does not read the
// answers. It checks that the broker limits the number of these connections, and so the memory
// of unread answers.
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
	time.Sleep(5 * time.Second) // during this time, the attacker opens connections
	connections, err := b.connections()
	if err == nil && (connections == 0 || connections > 64) {
		err = fmt.Errorf("the attacker has %d open connections, want 1 to 64", connections)
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
	return attempts, fmt.Sprintf("%d gets, %d connections stay open, kernel memory %+d KiB", gets, connections, kernel), err
}

// kernelMemory returns how much memory the kernel uses for small objects, in KiB. Unread data
// in sockets is a part of this memory.
func kernelMemory() (kilobytes int) {
	text, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Slab:" {
			kilobytes, _ = strconv.Atoi(fields[1])
		}
	}
	return kilobytes
}
