package devcontainer

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// TestSupervisorStopsWaitingForProcessThatDoesNotEnd simulates a process that did not end after
// SIGKILL, for example because it belongs to another user. The supervisor must report the process.
// If the command itself has ended, the supervisor must then restart the command. If the command is
// still running, the supervisor must not start the command a second time.
func TestSupervisorStopsWaitingForProcessThatDoesNotEnd(t *testing.T) {
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	want := fmt.Sprintf("the process %d (sleep) did not end after SIGKILL, so it keeps the old secrets", c.Process.Pid)
	for _, exited := range []bool{true, false} {
		var reports []string
		s := &supervisor{
			Child: Child{Report: func(message string) { reports = append(reports, message) }}, pid: c.Process.Pid, exited: exited,
			restartEnvironment: []string{"A=new"}, ending: true, killed: true, endTimer: time.After(0),
		}
		s.escalate()
		if len(reports) != 1 || reports[0] != want {
			t.Errorf("reports %q, want %q", reports, want)
		}
		if s.mustWait() || s.endTimer != nil || (s.restartEnvironment != nil) != exited {
			t.Errorf("exited %v: the supervisor waits, or has the wrong pending restart: %+v", exited, s)
		}
	}
}

// TestDescendantsOmitsEarlierChildren starts two children with one child each, and excludes
// the first child. descendants must return the grandchild below the second child, but neither
// the excluded child nor its child.
func TestDescendantsOmitsEarlierChildren(t *testing.T) {
	var parents [2]*exec.Cmd
	for i := range parents {
		parents[i] = exec.Command("sh", "-c", "sleep 1000 & echo; read line; kill $!")
		out, err := parents[i].StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		in, err := parents[i].StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := parents[i].Start(); err != nil {
			t.Fatal(err)
		}
		defer parents[i].Wait()
		defer in.Close() // without input, the shell kills sleep and ends
		out.Read(make([]byte, 1))
	}
	parentCount := map[int]int{}
	for _, p := range descendants(0, map[int]bool{parents[0].Process.Pid: true}) {
		parentCount[p.parent]++
		if p.pid == parents[0].Process.Pid {
			t.Error("descendants returned an excluded process")
		}
	}
	if parentCount[parents[0].Process.Pid] != 0 || parentCount[parents[1].Process.Pid] != 1 {
		t.Errorf("descendants returned these numbers of children by process ID: %v, want 0 for %d and 1 for %d", parentCount, parents[0].Process.Pid, parents[1].Process.Pid)
	}
}

// TestSupervisorDelaysFrequentRestarts changes the secrets more often than the supervisor
// restarts the command, as two sidecars with different secrets do. The supervisor must report
// the delay once, and must restart the command later with the latest secrets.
func TestSupervisorDelaysFrequentRestarts(t *testing.T) {
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	var reports []string
	s := &supervisor{
		Child:   Child{OnChange: ChangeAction{Restart: true}, Report: func(message string) { reports = append(reports, message) }},
		earlier: map[int]bool{c.Process.Pid: true}, restartLimiter: rate.NewLimiter(rate.Every(time.Hour), 1),
	}
	s.applyUpdate([]string{"A=1"})
	s.applyUpdate([]string{"A=2"}) // the secrets change again before the command has ended
	if !s.ending || !slices.Equal(s.restartEnvironment, []string{"A=2"}) || len(reports) > 0 {
		t.Errorf("reports %q, %+v", reports, s)
	}
	s.ending, s.restartEnvironment = false, nil // simulate the restart of the command
	for _, environment := range [][]string{{"A=3"}, {"A=4"}} {
		if s.applyUpdate(environment); s.ending || s.restartEnvironment != nil || s.delayTimer == nil {
			t.Errorf("the supervisor did not delay the restart: %+v", s)
		}
	}
	if len(reports) != 1 || !strings.HasPrefix(reports[0], "the secrets change too often, so the next restart of the command is delayed by 1h0m0s; ") {
		t.Errorf("reports %q", reports)
	}
	s.endDelay()
	if !s.ending || !slices.Equal(s.restartEnvironment, []string{"A=4"}) || s.delayTimer != nil {
		t.Errorf("the supervisor did not begin the restart: %+v", s)
	}
	s.ending, s.restartEnvironment = false, nil
	s.applyUpdate([]string{"A=5"})
	s.pid = c.Process.Pid
	if s.forward(unix.SIGTERM); s.delayTimer != nil {
		t.Error("SIGTERM does not cancel the delayed restart")
	}
}
