package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

const (
	adminGroup       = "keyhatch"
	systemRuntimeDir = "/run/keyhatch"
	systemSocket     = systemRuntimeDir + adminSocketSuffix

	adminSocketSuffix = "/admin/admin.sock"
)

// sidecarCommand returns a command line of keyhatch-sidecar for a hint. STORE is a
// placeholder, because only the sidecar knows the store.
func (o *globalOptions) sidecarCommand(subcommand string) string {
	words := []string{"keyhatch-sidecar", subcommand, "--store", "STORE"}
	if o.socket != "" {
		words = append(words, "--socket", o.socket)
	}
	return quoteWords(words)
}

func quoteWords(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = cli.ShellQuote(word)
	}
	return strings.Join(quoted, " ")
}

// sudoToWrite returns "sudo " if this user cannot change the entries of dir, or cannot create
// dir. Otherwise it returns "".
func sudoToWrite(dir string) string {
	err := unix.Access(dir, unix.W_OK)
	for errors.Is(err, fs.ErrNotExist) {
		dir = filepath.Dir(dir) // ends at / or ., which always exist
		err = unix.Access(dir, unix.W_OK)
	}
	if os.Geteuid() == 0 || err == nil {
		return ""
	}
	return "sudo "
}

// sudoToActAs returns "sudo " if this user cannot act as the user with the given uid.
func sudoToActAs(uid uint32) string {
	if euid := os.Geteuid(); euid == 0 || uint32(euid) == uid {
		return ""
	}
	return "sudo "
}

// A brokerProcess is the process that created the broker's admin socket.
type brokerProcess struct {
	pid  int32 // 0 if unknown
	uid  uint32
	name string // "keyhatchd", or "systemd" if systemd passed the socket to keyhatchd
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
// not start the broker.
func (p brokerProcess) systemctl(verb string) string {
	switch {
	case p.name != "systemd":
		return ""
	case p.uid == 0:
		return sudoToActAs(0) + "systemctl " + verb + " keyhatch"
	}
	return "systemctl --user " + verb + " keyhatch"
}

// applyDeclarationsCommand returns the command that makes the broker apply its declarations.
func (p brokerProcess) applyDeclarationsCommand() string {
	if command := p.systemctl("reload"); command != "" {
		return command
	}
	if p.name == "keyhatchd" {
		return sudoToActAs(p.uid) + "kill -HUP " + strconv.Itoa(int(p.pid))
	}
	return "pkill -HUP -x keyhatchd"
}

// restartFix describes how to restart the broker.
func (p brokerProcess) restartFix() string {
	if command := p.systemctl("restart"); command != "" {
		return "restart the broker: " + command
	}
	if p.name == "keyhatchd" {
		return "start keyhatchd again after: " + sudoToActAs(p.uid) + "kill " + strconv.Itoa(int(p.pid))
	}
	return "restart keyhatchd"
}

// memoryFix describes how to raise the broker's limit of locked memory.
func (p brokerProcess) memoryFix() string {
	if command := p.systemctl("restart"); command != "" {
		return "set LimitMEMLOCK=64M under [Service] with: " + p.systemctl("edit") + "\nthen restart the broker: " + command
	}
	if p.name == "keyhatchd" {
		return fmt.Sprintf("raise the limit, which the next push uses: %sprlimit --memlock=67108864 --pid %d", sudoToActAs(0), p.pid)
	}
	return "start keyhatchd with a higher limit of locked memory (ulimit -l)"
}

// noSecretsText explains why the broker has no secrets. fix describes how to load them.
func (o *globalOptions) noSecretsText(s schema.StatusResponse) (cause, fix string) {
	// One connection is the connection of this command. A sidecar does not close its connection.
	sidecarIsConnected := s.AdminConnections > 1
	switch {
	case s.SecretsClearedAt != nil && sidecarIsConnected:
		return "they were cleared at " + formatTime(*s.SecretsClearedAt) + ", and a running sidecar does not push them again until its store changes",
			"restart the sidecar, or change a secret in the sidecar's store"
	case sidecarIsConnected:
		return "a client is connected to the admin socket, but has not pushed secrets; if the client is the sidecar, the sidecar cannot read its store",
			"read the sidecar's log, or check the sidecar's store: " + o.sidecarCommand("health")
	case s.SecretsClearedAt != nil:
		return "they were cleared at " + formatTime(*s.SecretsClearedAt) + ", and no sidecar is connected", "start the sidecar: " + o.sidecarCommand("run")
	}
	return "no sidecar has pushed since the broker started, and no sidecar is connected", "start the sidecar: " + o.sidecarCommand("run")
}

// startBrokerHint describes how to start the broker of an admin socket.
func (o *globalOptions) startBrokerHint(socket string) string {
	dir, isAdminSocket := strings.CutSuffix(socket, adminSocketSuffix)
	if !isAdminSocket {
		return "correct --socket: the path of an admin socket ends with " + adminSocketSuffix
	}
	start := "keyhatchd"
	switch {
	case dir == systemRuntimeDir && isSystemUnitInstalled():
		start = sudoToActAs(0) + "systemctl start keyhatch.socket keyhatch.service"
	case dir != cli.DefaultRuntimeDir():
		start = "keyhatchd --runtime-dir " + cli.ShellQuote(dir)
	}
	hint := "start the broker: " + start
	if o.socket != "" {
		return "correct --socket, or " + hint
	}
	if socket != systemSocket && exists(systemSocket) {
		return "use --socket " + systemSocket + ", the broker of the system, or " + hint
	}
	return hint
}

// noSocketHint returns the hint for a user without a default admin socket.
func noSocketHint() string {
	socket := "PATH"
	if exists(systemSocket) {
		socket = systemSocket
	}
	return "select the broker: " + quoteWords(append([]string{"keyhatchctl", "--socket", socket}, os.Args[1:]...))
}

// adminSocketHint returns the hint for the path of a project's socket in the flag --socket.
func adminSocketHint(projectSocket string) string {
	projects := filepath.Dir(filepath.Dir(projectSocket))
	if filepath.Base(projects) != "projects" { // the path is not RUNTIME_DIR/projects/NAME/broker.sock
		return projectSocket + " is a project's socket; correct --socket: the path of an admin socket ends with " + adminSocketSuffix
	}
	runtimeDir := filepath.Dir(projects)
	words := []string{"keyhatchctl"}
	for _, arg := range os.Args[1:] {
		words = append(words, strings.ReplaceAll(arg, projectSocket, runtimeDir+adminSocketSuffix))
	}
	return "this is a project's socket; use the admin socket: " + quoteWords(words)
}

func isSystemUnitInstalled() bool {
	return exists("/run/systemd/system") && (exists("/usr/lib/systemd/system/keyhatch.service") || exists("/etc/systemd/system/keyhatch.service"))
}

// exists reports whether a file exists. A file that this user cannot see can exist.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil || os.IsPermission(err)
}

// permissionHint describes how this user can get access to the admin socket.
func permissionHint(socket string) string {
	owner, gid := visibleOwner(socket)
	rerun := quoteWords(append([]string{"keyhatchctl"}, os.Args[1:]...))
	if owner != 0 {
		return fmt.Sprintf("the broker belongs to uid %d: sudo -u '#%d' %s", owner, owner, rerun)
	}
	hint := "sudo " + rerun
	group, err := user.LookupGroup(adminGroup)
	if err != nil || socket != systemSocket && strconv.Itoa(int(gid)) != group.Gid {
		return hint
	}
	// The user may have joined the group after the start of this session.
	if currentUser, err := user.Current(); err == nil {
		if groups, err := currentUser.GroupIds(); err == nil && slices.Contains(groups, group.Gid) {
			if session, err := os.Getgroups(); err == nil && !slices.ContainsFunc(session, func(gid int) bool { return strconv.Itoa(gid) == group.Gid }) {
				return "you joined group " + adminGroup + " after the start of this session. Log in again, or run: newgrp " + adminGroup
			}
		}
	}
	return hint + "\nor join group " + adminGroup + ", whose members can list the names of all secrets and replace all secrets, and log in again: sudo usermod -aG " + adminGroup + " $USER"
}

// visibleOwner returns the owner and the group of path. If this user cannot see path,
// visibleOwner returns those of the nearest directory above path that the user can see.
func visibleOwner(path string) (uid, gid uint32) {
	for {
		if info, err := os.Stat(path); err == nil {
			stat := info.Sys().(*syscall.Stat_t)
			return stat.Uid, stat.Gid
		}
		path = filepath.Dir(path) // ends at / or ., which always exist
	}
}
