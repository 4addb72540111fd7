package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// waitAndLeave starts an attacker that closes each connection while a request on the
// connection waits. It checks that the broker releases these connections.
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

// connectRefused checks that a client with a refused uid can read the refusal, even if the
// client sends its request after the broker has sent the refusal.
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

// fillAuditLog checks that the broker adds up many fetches in one audit event, and that the
// events count every fetch.
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
		err = fmt.Errorf("the broker recorded %d audit events in %d seconds, want at most %d", len(lines), seconds, seconds+3)
	case counted < fetched || counted > fetched+2: // the broker may count two answers that the attacker did not read
		err = fmt.Errorf("the audit events count %d fetches, but the attacker fetched %d values", counted, fetched)
	case len(b.auditLines(secret)) > 0:
		err = errors.New("the audit log contains a secret")
	}
	return attempts, noticed, err
}

// delayStop measures how long a stop of the broker takes while an attacker uses many
// connections.
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
		n, err := b.connections()
		if err == nil && n < 30 {
			err = fmt.Errorf("the attacker has only %d connections, want at least 30", n)
		}
		return err
	}); err != nil {
		return 0, "", err
	}
	took := b.stop()
	if took > 1500*time.Millisecond && !s.small {
		err = exceeds("stopping the broker took too long")
	}
	return 60, fmt.Sprintf("the broker took %v to stop", took.Round(time.Millisecond)), err
}

// shutDown measures how much processor time the broker uses while an attacker calls
// shutdown(2) again and again.
func shutDown(s *setup) (int, string, error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	const seconds = 30 // the attack uses up the burst of the request limit, and continues
	attempts, noticed := 0, ""
	for name, uid := range map[string]uint32{"allowed": attackerUID, "refused": refusedUID} {
		before := b.processorTime()
		_, calls, attackErr := b.attack(uid, "shutdown", b.socket("evil"), strconv.Itoa(seconds))
		attempts += calls
		share := 100 * float64(b.processorTime()-before) / float64(time.Duration(seconds)*time.Second)
		noticed += fmt.Sprintf("%.1f%% of a processor for a uid that is %s; ", share, name)
		if attackErr == nil && share > 10 && !s.small {
			attackErr = exceeds("the broker used too much processor time")
		}
		if err == nil {
			err = attackErr
		}
	}
	return attempts, strings.TrimSuffix(noticed, "; "), err
}

// hiddenPID runs the broker in another pid namespace than the attacker. So the broker cannot
// see the pid of the attacker. The broker must still serve an allowed uid, and refuse a uid that
// is not allowed.
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
		err = errors.New("a caller whose pid the broker cannot see got no secret")
	}
	_, refused, refusedErr := b.attack(refusedUID, "refusals", b.socket("evil"), "5")
	if err == nil {
		err = refusedErr
	}
	if err == nil && refused != 5 {
		err = fmt.Errorf("only %d of 5 callers with a refused uid received the refusal", refused)
	}
	b.cmd.Process.Signal(syscall.SIGTERM)
	for _, line := range b.auditLines("secrets.fetched") {
		if strings.Contains(line, "peer_pid") {
			err = errors.New("an audit event contains a pid that the broker cannot know")
		}
	}
	return attempts, fmt.Sprintf("%d fetches", fetched), err
}
