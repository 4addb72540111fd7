package cli

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	adminGroup       = "keyhatch"
	systemRuntimeDir = "/run/keyhatch"

	// SystemSocket is the admin socket of the broker that runs as root, or as a system service.
	SystemSocket = systemRuntimeDir + AdminSocketSuffix

	// AdminSocketSuffix is the end of the path of an admin socket. The rest of the path is the
	// path of the runtime directory.
	AdminSocketSuffix = "/admin/admin.sock"
)

// SudoToActAs returns "sudo " if a command needs the permissions of the user with the given
// uid, and this process belongs neither to this user nor to root. Otherwise it returns "".
func SudoToActAs(uid uint32) string {
	if euid := os.Geteuid(); euid == 0 || uint32(euid) == uid {
		return ""
	}
	return "sudo "
}

// StartBrokerHint returns the hint for an admin socket on which no broker answers. The hint
// describes how to start the broker, or how to correct --socket. chosen is true if the user
// chose the socket with --socket.
func StartBrokerHint(socket string, chosen bool) string {
	dir, isAdminSocket := strings.CutSuffix(socket, AdminSocketSuffix)
	if !isAdminSocket {
		return "if ssh forwards this socket, start ssh again; otherwise correct --socket: the path of an admin socket ends with " + AdminSocketSuffix
	}
	const addFlags = " (add the other flags that it had, for example --projects-dir): keyhatchd"
	hint := "start the broker"
	switch {
	case dir == systemRuntimeDir && isSystemUnitInstalled():
		hint += ": " + SudoToActAs(0) + "systemctl start keyhatch.socket keyhatch.service"
	case dir != DefaultRuntimeDir():
		hint += addFlags + " --runtime-dir " + ShellQuote(dir)
	default:
		hint += addFlags
	}
	if chosen {
		return "correct --socket, or " + hint
	}
	if socket != SystemSocket && fileExists(SystemSocket) {
		return "add --socket " + SystemSocket + " to use the broker of the system, or " + hint
	}
	return hint
}

// ErrNoSocket means that the path of the admin socket is unknown, because neither --socket nor
// XDG_RUNTIME_DIR is set.
var ErrNoSocket = errors.New("cannot find the admin socket: XDG_RUNTIME_DIR is not set")

// NoSocketError returns ErrNoSocket with a hint, and with the exit code ExitUsage.
func NoSocketError() error {
	socket := "PATH"
	if fileExists(SystemSocket) {
		socket = SystemSocket
	}
	hint := "set XDG_RUNTIME_DIR to the value that it has in the broker's environment, or select the broker: " + QuoteWords(argsWithFlag(os.Args, "--socket", socket))
	return &Error{Err: ErrNoSocket, Hint: hint, ExitCode: ExitUsage}
}

// argsWithFlag returns a copy of args that also contains flag and value. If args contain --, the
// flag is before --, because the arguments after -- belong to another command.
func argsWithFlag(args []string, flag, value string) []string {
	end := slices.Index(args, "--")
	if end < 0 {
		end = len(args)
	}
	return slices.Insert(slices.Clone(args), end, flag, value)
}

// RerunAs returns a shell command that runs the command of this process again, as the user with
// the given uid. socket is the path of the admin socket. The shell command contains this path,
// unless the other user is root and the path is SystemSocket, which is root's default.
func RerunAs(uid uint32, socket string) string { return rerunAs(uid, socket, os.Args) }

// rerunAs is like RerunAs, but uses args instead of the arguments of this process.
func rerunAs(uid uint32, socket string, args []string) string {
	isDefault := uid == 0 && socket == SystemSocket
	if !isDefault && !slices.ContainsFunc(args, func(arg string) bool { return strings.Contains(arg, socket) }) {
		args = argsWithFlag(args, "--socket", socket)
	}
	if uid == 0 {
		return "sudo " + QuoteWords(args)
	}
	return fmt.Sprintf("sudo -u '#%d' %s", uid, QuoteWords(args))
}

// AdminSocketHint returns the hint for a user who set --socket to the path of a project's
// socket instead of the admin socket.
func AdminSocketHint(projectSocket string) string {
	projects := filepath.Dir(filepath.Dir(projectSocket))
	if filepath.Base(projects) != "projects" { // the path is not RUNTIME_DIR/projects/NAME/broker.sock
		return projectSocket + " is a project's socket; correct --socket: the path of an admin socket ends with " + AdminSocketSuffix
	}
	runtimeDir := filepath.Dir(projects)
	words := []string{os.Args[0]}
	for _, arg := range os.Args[1:] {
		words = append(words, strings.ReplaceAll(arg, projectSocket, runtimeDir+AdminSocketSuffix))
	}
	return "this is a project's socket; use the admin socket: " + QuoteWords(words)
}

func isSystemUnitInstalled() bool {
	return fileExists("/run/systemd/system") && (fileExists("/usr/lib/systemd/system/keyhatch.service") || fileExists("/etc/systemd/system/keyhatch.service"))
}

// fileExists reports whether a file exists. If this user has no permission to see the file,
// fileExists returns true, because the file may exist.
func fileExists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil || os.IsPermission(err)
}

// PermissionHint describes how this user can get access to the admin socket at the path socket.
func PermissionHint(socket string) string {
	owner, gid := VisibleOwner(socket)
	hint := RerunAs(owner, socket)
	if owner != 0 {
		return fmt.Sprintf("run the command as the broker's user, uid %d: %s", owner, hint)
	}
	group, err := user.LookupGroup(adminGroup)
	if err != nil || socket != SystemSocket && strconv.Itoa(int(gid)) != group.Gid {
		return hint
	}
	// If the user joined the group after the start of this session, the processes of the session
	// do not belong to the group yet.
	if currentUser, err := user.Current(); err == nil {
		if groups, err := currentUser.GroupIds(); err == nil && slices.Contains(groups, group.Gid) {
			if session, err := os.Getgroups(); err == nil && !slices.ContainsFunc(session, func(gid int) bool { return strconv.Itoa(gid) == group.Gid }) {
				return "you joined group " + adminGroup + " after the start of this session. Log in again, or run: newgrp " + adminGroup
			}
		}
	}
	return hint + "\nor join group " + adminGroup + ", and then log in again (members can list the names of all secrets and replace all secrets): sudo usermod -aG " + adminGroup + " $USER"
}

// VisibleOwner returns the owner and the group of path. If path does not exist, or if this
// user cannot see path, VisibleOwner returns the owner and the group of the nearest directory
// above path that this user can see.
func VisibleOwner(path string) (uid, gid uint32) {
	for {
		if info, err := os.Stat(path); err == nil {
			stat := info.Sys().(*syscall.Stat_t)
			return stat.Uid, stat.Gid
		}
		path = filepath.Dir(path) // the loop ends at / or at ., because these directories exist
	}
}
