package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

func passDescriptors(s *setup) (int, string, error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	before := b.usage()
	v := startVictim(b.socket("web"))
	// Each attempt passes 50 file descriptors.
	attempts, taken, err := b.attack(attackerUID, "descriptors", b.socket("evil"), strconv.Itoa(s.count(200)))
	gets, _, victimErr := v.finish()
	if err == nil {
		err = victimErr
	}
	threads := b.usage().Threads
	if err == nil && threads > before.Threads+16 {
		err = exceeds("the broker had %d threads before the attack, and %d afterwards", before.Threads, threads)
	}
	if err == nil {
		err = b.waitForNoConnections()
	}
	if err == nil {
		err = b.recovered(before)
	}
	if took := b.stop(); err == nil && took > 1500*time.Millisecond && !s.small {
		err = exceeds("the broker took %v to stop, but may take at most 1.5s", took)
	}
	return 50 * attempts, fmt.Sprintf("%d gets; the kernel accepted %d file descriptors", gets, 50*taken), err
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
		err = errors.New("the attacker made no attempt: it could not mount the FUSE file system, open a file in it, or connect to the broker")
	}
	if err == nil {
		err = b.waitForNoConnections()
	}
	if err == nil {
		err = b.recovered(before)
	}
	if took := b.stop(); err == nil && took > 1500*time.Millisecond && !s.small {
		err = exceeds("the broker took %v to stop, but may take at most 1.5s", took)
	}
	return attempts, fmt.Sprintf("%d gets; the kernel accepted %d file descriptors", gets, taken), err
}

// takeAllDescriptors starts a broker that can open only 64 file descriptors, and opens more
// connections than this broker can accept.
func takeAllDescriptors(s *setup) (int, string, error) {
	b, err := startBroker(s, "prlimit", "--nofile=64:64")
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	before := b.usage()
	v := startVictim(b.socket("web"))
	time.Sleep(100 * time.Millisecond) // the client of project web connects in this time
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
