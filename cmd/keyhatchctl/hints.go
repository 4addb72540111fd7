package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// sidecarCommand returns a command line of keyhatch-sidecar for a hint. STORE is a placeholder,
// because keyhatchctl does not know the store of the sidecar.
func (o *globalOptions) sidecarCommand(subcommand string) string {
	words := []string{"keyhatch-sidecar", subcommand, "--store", "STORE"}
	if o.socket != "" {
		words = append(words, "--socket", o.socket)
	}
	if o.tokenFile != "" {
		words = append(words, "--admin-token-file", o.tokenFile)
	}
	return cli.QuoteWords(words)
}

// sudoToChange returns "sudo " if this user cannot change the entries of dir, or cannot create
// dir. Otherwise it returns "".
func sudoToChange(dir string) string {
	err := unix.Access(dir, unix.W_OK)
	for errors.Is(err, fs.ErrNotExist) {
		dir = filepath.Dir(dir) // the loop ends at / or at ., because these directories exist
		err = unix.Access(dir, unix.W_OK)
	}
	if os.Geteuid() == 0 || err == nil {
		return ""
	}
	return "sudo "
}

// A brokerProcess is the process that created the broker's admin socket. The process is
// keyhatchd, or systemd with socket activation.
type brokerProcess struct {
	pid  int32  // 0 if this process cannot see the broker's process
	uid  uint32 // of the process
	name string // the name of the process, usually "keyhatchd" or "systemd"; "" if unknown
}

func findBrokerProcess(admin *client.Admin) brokerProcess {
	peer, err := admin.Peer()
	if err != nil || peer.Pid <= 0 {
		return brokerProcess{}
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", peer.Pid))
	if err != nil {
		return brokerProcess{}
	}
	return brokerProcess{peer.Pid, peer.Uid, strings.TrimSpace(string(name))}
}

// systemctl returns a command line of systemctl for the broker's unit, or "" if systemd did
// not create the admin socket.
func (p brokerProcess) systemctl(verb string) string {
	switch {
	case p.name != "systemd":
		return ""
	case p.uid == 0:
		return cli.SudoToActAs(0) + "systemctl " + verb + " keyhatch"
	}
	return "systemctl --user " + verb + " keyhatch"
}

// applyDeclarationsCommand returns the command that makes the broker apply its declarations.
func (p brokerProcess) applyDeclarationsCommand() string {
	if command := p.systemctl("reload"); command != "" {
		return command
	}
	if p.name == "keyhatchd" {
		return cli.SudoToActAs(p.uid) + "kill -HUP " + strconv.Itoa(int(p.pid))
	}
	return "pkill -HUP -x keyhatchd"
}

// restartFix describes how to restart the broker.
func (p brokerProcess) restartFix() string {
	if command := p.systemctl("restart"); command != "" {
		return "restart the broker: " + command
	}
	if p.name == "keyhatchd" {
		return "start keyhatchd again after this command: " + cli.SudoToActAs(p.uid) + "kill " + strconv.Itoa(int(p.pid))
	}
	return "restart keyhatchd"
}

// memoryFix describes how to raise the broker's limit of locked memory.
func (p brokerProcess) memoryFix() string {
	if command := p.systemctl("restart"); command != "" {
		return "set LimitMEMLOCK=64M under [Service] with: " + p.systemctl("edit") + "\nthen restart the broker: " + command
	}
	if p.name == "keyhatchd" {
		return fmt.Sprintf("raise the limit of locked memory for the next push: %sprlimit --memlock=67108864 --pid %d", cli.SudoToActAs(0), p.pid)
	}
	return "start keyhatchd with a higher limit of locked memory (ulimit -l)"
}

// noSecretsText returns the probable cause if the broker has no secrets. fix describes how to
// load secrets.
func (o *globalOptions) noSecretsText(s schema.StatusResponse) (cause, fix string) {
	switch {
	case s.SecretsClearedAt != nil && isSidecarConnected(s):
		return "they were cleared at " + formatTime(*s.SecretsClearedAt) + ", and a running sidecar does not push them again until its store changes", pushAgainFix(s)
	case isSidecarConnected(s):
		return "a client is connected to the admin socket, but has not pushed secrets; if the client is the sidecar, the sidecar cannot read its store",
			"read the sidecar's log, or check the sidecar's store: " + o.sidecarCommand("health")
	case s.SecretsClearedAt != nil:
		return "they were cleared at " + formatTime(*s.SecretsClearedAt) + ", and no sidecar is connected", "start the sidecar: " + o.sidecarCommand("run")
	}
	return "no sidecar has pushed since the broker started, and no sidecar is connected", "start the sidecar: " + o.sidecarCommand("run")
}

// isSidecarConnected reports whether a sidecar is probably connected. One admin connection is the
// connection of this command. Each keyhatchctl events also has a connection, and EventReaders is
// the number of these connections. Any further connection is probably that of a sidecar, because
// a sidecar keeps its connection open.
func isSidecarConnected(s schema.StatusResponse) bool { return s.AdminConnections-s.EventReaders > 1 }

// pushAgainFix describes how to make a running sidecar push a store that has not changed.
func pushAgainFix(s schema.StatusResponse) string {
	dir := fmt.Sprintf("/proc/%d", s.SidecarPID)
	name, err := os.ReadFile(dir + "/comm")
	// Check the name of the process, because the pid belongs to another process if this command
	// and the broker are in different pid namespaces. The kernel shortens the name of a process
	// to 15 characters.
	if err != nil || string(name) != "keyhatch-sideca\n" {
		return "restart the sidecar, or send the signal SIGUSR1 to the sidecar"
	}
	if group, err := os.ReadFile(dir + "/cgroup"); err == nil && strings.HasSuffix(string(group), "/system.slice/keyhatch-sidecar.service\n") {
		return "make the sidecar push again: " + cli.SudoToActAs(0) + "systemctl reload keyhatch-sidecar"
	}
	sudo := ""
	if unix.Kill(int(s.SidecarPID), 0) == unix.EPERM {
		sudo = "sudo "
	}
	return fmt.Sprintf("make the sidecar push again: %skill -USR1 %d", sudo, s.SidecarPID)
}

func formatTime(t time.Time) string { return t.Local().Format(time.DateTime) }
