package devcontainer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// A Finding is the result of one check of keyhatch doctor. It contains no value and no name
// of a secret.
type Finding struct {
	Check   string // the name of the check: socket, secrets, or memory
	Problem string // one of the Problem constants, or "" if the check passed
	Detail  string
	Fix     string // how to solve the problem; each line is a step, or another solution
}

// The problems that Diagnose can report.
const (
	ProblemMountMissing  = "mount_missing"
	ProblemStaleMount    = "stale_mount"
	ProblemNotRegistered = "not_registered"
	ProblemMadeByEngine  = "made_by_engine"
	ProblemWrongSocket   = "wrong_socket"
	ProblemAdminSocket   = "admin_socket"
	ProblemNoPermission  = "no_permission"
	ProblemNotServed     = "not_served"
	ProblemBrokerDown    = "broker_down"
	ProblemUIDRefused    = "uid_refused"
	ProblemProtocolSkew  = "protocol_skew"
	ProblemRefused       = "refused"
	ProblemNothingLoaded = "nothing_loaded"
	ProblemNotTmpfs      = "not_tmpfs"
	ProblemCodespaces    = "codespaces"
	ProblemDockerDesktop = "docker_desktop"
)

// recreateContainer is the last step of several fixes. The mounts of an existing container
// cannot be changed, so the user must create the container again.
const recreateContainer = "recreate the container (devcontainer up --remove-existing-container, or Rebuild Container in VS Code)"

// mountFix explains how to mount the directory of the project's socket into the container.
const mountFix = "create the container with the keyhatch Feature, or with docker run -v /run/keyhatch/projects/NAME:/run/keyhatch:ro\n" +
	"or " + AskOperator + "keyhatchctl up DIR -- --remove-existing-container"

// AskOperator begins a fix or a hint with a command that only the operator can run. The user
// in the container may be another person, and the command works only on the host.
const AskOperator = "ask the operator to run: "

// Fixes for several problems.
const (
	installFix = "install the version of the keyhatch command that the broker has"
	retryFix   = "wait a second, and check again: keyhatch doctor\n" + AskOperator + "keyhatchctl doctor"
)

// Platform describes the system that a container runs on.
type Platform struct {
	InCodespace   bool   // whether the variable CODESPACES is set, as in every codespace
	KernelRelease string // the output of uname -r
	MemoryMount   string // the mount point of the tmpfs for rendered files
}

// DetectPlatform returns the platform of this process.
func DetectPlatform() Platform {
	platform := Platform{InCodespace: os.Getenv("CODESPACES") != "", MemoryMount: "/dev/shm"}
	var uname unix.Utsname
	if unix.Uname(&uname) == nil {
		platform.KernelRelease = unix.ByteSliceToString(uname.Release[:])
	}
	return platform
}

// Diagnose checks the socket, the broker, and the tmpfs for rendered files. It fetches no
// secret.
func Diagnose(ctx context.Context, socket string, platform Platform) []Finding {
	socketFinding, pong := checkSocket(ctx, socket)
	findings := []Finding{platform.explainUnreachable(socketFinding)}
	if pong != nil {
		findings = append(findings, checkSecretsLoaded(ctx, socket))
	}
	return append(findings, checkMemoryMount(platform.MemoryMount))
}

// explainUnreachable replaces a finding about an unreachable socket if the platform is
// probably the cause. A container in a codespace or in another virtual machine cannot use a
// Unix socket of the user's machine.
func (p Platform) explainUnreachable(f Finding) Finding {
	switch f.Problem {
	case ProblemMountMissing, ProblemStaleMount, ProblemNotRegistered, ProblemMadeByEngine, ProblemNotServed, ProblemBrokerDown:
	default:
		return f
	}
	const sameMachine = "a Unix socket works only within one machine: run keyhatchd and the sidecar "
	switch {
	case p.InCodespace:
		f.Problem, f.Fix = ProblemCodespaces, sameMachine+"in the codespace, or run this container on your own machine"
		f.Detail = "this container runs in a codespace, so it cannot reach a broker on your own machine: " + f.Detail
	case strings.Contains(p.KernelRelease, "linuxkit"), strings.Contains(p.KernelRelease, "microsoft"):
		f.Problem, f.Fix = ProblemDockerDesktop, sameMachine+"in the virtual machine or WSL distribution of the container engine\nthen "+f.Fix
		f.Detail = "the container engine runs in a virtual machine (kernel " + p.KernelRelease + "): " + f.Detail
	}
	return f
}

// checkSocket checks that a broker answers on the socket. If no broker answers, checkSocket
// determines the cause. If the check finds no problem, pong is the broker's answer to a ping.
// Otherwise pong is nil.
func checkSocket(ctx context.Context, socket string) (result Finding, pong *schema.ProjectPingResponse) {
	finding := func(problem, fix, format string, args ...any) (Finding, *schema.ProjectPingResponse) {
		return Finding{"socket", problem, fmt.Sprintf(format, args...), fix}, nil
	}
	var stat unix.Stat_t
	err := unix.Stat(socket, &stat)
	nearSocket := findSocketNear(socket)
	switch {
	case (err == unix.ENOENT || err == unix.ENOTDIR) && nearSocket != "":
		return finding(ProblemWrongSocket, correctSocketFix(nearSocket), "%s does not exist", socket)
	case err == unix.ENOENT || err == unix.ENOTDIR:
		return diagnoseMissingSocket(filepath.Dir(socket)), nil
	case err != nil:
		return finding(ProblemNoPermission, fmt.Sprintf("run keyhatch as a user that can access %s, for example as root", filepath.Dir(socket)), "cannot access %s as uid %d: %v", socket, os.Getuid(), err)
	case stat.Mode&unix.S_IFMT == unix.S_IFDIR && (nearSocket != "" || filepath.Base(socket) != socketName):
		return finding(ProblemWrongSocket, correctSocketFix(nearSocket), "%s is a directory, and not a socket", socket)
	case stat.Mode&unix.S_IFMT == unix.S_IFDIR:
		return finding(ProblemMadeByEngine, "mount the directory of the socket, not the socket itself\nask the operator to remove the directory broker.sock, and to run: keyhatchctl register DIR\nthen "+recreateContainer,
			"%s is a directory: the container engine created this directory because the socket that it should mount did not exist", socket)
	case stat.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return finding(ProblemWrongSocket, correctSocketFix(nearSocket), "%s is not a socket", socket)
	}
	answer, err := client.NewProject(socket).Ping(ctx, 0)
	switch {
	case err == nil && answer.Project == "":
		return finding(ProblemAdminSocket, "mount the directory of a project's socket instead, and "+recreateContainer+"\nto find the path of the project's socket, "+AskOperator+"keyhatchctl projects --json",
			"%s is the admin socket of a broker, which gives access to all secrets and must not be in a project's container", socket)
	case err == nil && answer.ProtocolVersion == schema.ProtocolVersion:
		return Finding{Check: "socket", Detail: fmt.Sprintf("project %s is served by broker version %s on %s", answer.Project, answer.BrokerVersion, socket)}, &answer
	case err == nil:
		return finding(ProblemProtocolSkew, "install version "+answer.BrokerVersion+" of the keyhatch command, because the broker has this version",
			"the broker uses protocol version %d, but this keyhatch command uses version %d", answer.ProtocolVersion, schema.ProtocolVersion)
	case errors.Is(err, client.ErrProtocol):
		return finding(ProblemProtocolSkew, installFix, "%s: %v", socket, err)
	case client.CodeOf(err) == schema.CodePeerUnexpected:
		return finding(ProblemUIDRefused, RefusedUIDFix(err), "%v", err)
	case client.CodeOf(err) != "":
		return finding(ProblemRefused, retryFix, "%v", err)
	case errors.Is(err, fs.ErrPermission):
		return finding(ProblemNoPermission, "if the host uses SELinux, start the container with docker run --security-opt label=disable, or with security_opt: [label=disable] in Compose", "%v", err)
	case errors.Is(err, unix.ECONNREFUSED) && (stat.Nlink == 0 || mountRoot(socket) != ""):
		return finding(ProblemStaleMount, "mount the directory of the socket, not the socket itself, because a restarted broker creates a new socket; then "+recreateContainer,
			"%s is a mounted socket on which no process listens anymore", socket)
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		return finding(ProblemNotServed, AskOperator+"keyhatchctl doctor\nif the broker runs, and the project is not registered, "+AskOperator+"keyhatchctl register DIR",
			"no process listens on %s: the broker does not run, or it was restarted and no longer serves this project; this container and its mount need no change", socket)
	}
	return finding(ProblemBrokerDown, retryFix, "%v", err)
}

// socketName is the name of the socket in the directory that a container mounts.
const socketName = "broker.sock"

// findSocketNear returns the path of a socket that the user probably meant instead of path, or "".
// The socket is in path, next to path, or at the parent of path.
func findSocketNear(path string) string {
	dir := filepath.Dir(path)
	for _, near := range []string{filepath.Join(path, socketName), filepath.Join(dir, socketName), dir} {
		var stat unix.Stat_t
		if near != path && unix.Stat(near, &stat) == nil && stat.Mode&unix.S_IFMT == unix.S_IFSOCK {
			return near
		}
	}
	return ""
}

// correctSocketFix returns the fix for a wrong path of the socket. nearSocket is the result of
// findSocketNear for this path.
func correctSocketFix(nearSocket string) string {
	const correct = "correct KEYHATCH_SOCKET or --socket"
	if nearSocket == "" {
		return correct + "; in a container, omit --socket and use the default: unset KEYHATCH_SOCKET"
	}
	return correct + ": export KEYHATCH_SOCKET=" + nearSocket
}

// diagnoseMissingSocket determines why dir does not contain a socket.
func diagnoseMissingSocket(dir string) Finding {
	finding := func(problem, fix, detail string) Finding { return Finding{"socket", problem, dir + " " + detail, fix} }
	var stat unix.Stat_t
	err := unix.Stat(dir, &stat)
	if isInRuntimeDir(dir) {
		return finding(ProblemNotRegistered, AskOperator+"keyhatchctl register DIR", "contains no socket: the project is not registered; after a registration, the socket appears there")
	}
	if err != nil {
		return finding(ProblemMountMissing, mountFix, "does not exist: the directory of the project's socket is not mounted into this container")
	}
	root := mountRoot(dir)
	switch {
	case stat.Nlink == 0:
		return finding(ProblemStaleMount, "restart the container, because a restart mounts the directory again\nif the project is not registered, first "+AskOperator+"keyhatchctl register DIR",
			"was mounted into this container and then deleted on the host")
	case root == "":
		return finding(ProblemMountMissing, mountFix, "is a normal directory of this container: the directory of the project's socket is not mounted there")
	case isMadeByEngine(root):
		name := filepath.Join(filepath.Base(filepath.Dir(root)), filepath.Base(root))
		return finding(ProblemMadeByEngine, AskOperator+"keyhatchctl register DIR\nthen "+recreateContainer,
			"is the host's directory "+name+", which the container engine created because the project was not registered")
	}
	// The directory belongs to the path of a project. If the project was moved and registered
	// again, its socket is in another directory.
	return finding(ProblemNotRegistered, AskOperator+"keyhatchctl register DIR\nif the project is registered, "+recreateContainer,
		"is mounted but contains no socket: the project is not registered, or it is registered at another path than before")
}

// isInRuntimeDir reports whether dir is the path of a project's directory in the runtime
// directory of a broker. keyhatch can see the whole runtime directory only if it runs on the
// host, and not in a container.
func isInRuntimeDir(dir string) bool {
	projects := filepath.Dir(dir)
	var stat unix.Stat_t
	return filepath.Base(projects) == "projects" && unix.Stat(filepath.Join(filepath.Dir(projects), "admin"), &stat) == nil
}

// isMadeByEngine reports whether the container engine created the directory root in the
// broker's runtime directory, because a container started before its project was registered.
// In the directory devcontainers, the broker creates only links. In the directory projects,
// the broker creates links, and directories whose names begin with a dot. So the container
// engine created any other directory.
func isMadeByEngine(root string) bool {
	switch filepath.Base(filepath.Dir(root)) {
	case "devcontainers":
		return true
	case "projects":
		return !strings.HasPrefix(filepath.Base(root), ".")
	}
	return false
}

// checkSecretsLoaded checks that the broker has a snapshot. It fetches no secret.
func checkSecretsLoaded(ctx context.Context, socket string) Finding {
	project := client.NewProject(socket)
	info, err := project.Info(ctx, 0)
	if err == nil {
		// A request with an empty list of names returns the generation and no secret.
		var answer schema.GetManyResponse
		if answer, err = project.GetMany(ctx, []schema.SecretName{}, 0); err == nil && answer.Generation > 0 {
			return Finding{Check: "secrets", Detail: fmt.Sprintf("the broker has secrets; secrets on the allowlist: %d", len(info.Allowlist))}
		}
	}
	if err != nil {
		return Finding{"secrets", ProblemRefused, err.Error(), retryFix}
	}
	return Finding{"secrets", ProblemNothingLoaded, "the broker has no secrets: the sidecar has not pushed since the broker started or was cleared",
		AskOperator + "keyhatchctl doctor\nto wait for the secrets: keyhatch run --wait 15s -- COMMAND"}
}

// checkMemoryMount checks that rendered files would be in memory and not on a disk. The
// check is necessary because a container engine can silently create a volume instead of the
// tmpfs that a Feature requests.
func checkMemoryMount(dir string) Finding {
	if err := checkTmpfs(dir); err != nil {
		return Finding{"memory", ProblemNotTmpfs, err.Error(), "start the container with --tmpfs " + dir + " (runArgs in devcontainer.json, tmpfs in Compose), or remove the mount that hides the tmpfs at " + dir}
	}
	return Finding{Check: "memory", Detail: dir + " is a tmpfs"}
}

// mountRoot returns the file or directory that is mounted at path, as a path within its
// own file system. If path is not a mount point, mountRoot returns "".
func mountRoot(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	root := ""
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(text)) {
		// The fields of a line are: mount ID, parent ID, device, root, mount point, and
		// others (proc_pid_mountinfo(5)).
		if fields := strings.Fields(line); len(fields) > 4 && unescape.Replace(fields[4]) == path {
			root = unescape.Replace(fields[3]) // a later mount at the same path hides an earlier mount
		}
	}
	return root
}

// RefusedUID returns the uid in the error message of a broker that refused this process
// (schema.CodePeerUnexpected). In a rootless container, this uid can differ from the uid
// that the process itself sees. If the message contains no uid, RefusedUID returns the uid
// of this process.
func RefusedUID(err error) int {
	var uid int
	if e, ok := errors.AsType[*client.Error](err); ok {
		if n, _ := fmt.Sscanf(e.Message, "uid %d ", &uid); n == 1 {
			return uid
		}
	}
	return os.Getuid()
}

// RefusedUIDFix returns the fix for a user whose uid the broker refuses. err is the broker's
// refusal.
func RefusedUIDFix(err error) string {
	uid := RefusedUID(err)
	if uid == schema.UnmappedUID {
		return fmt.Sprintf("run keyhatch as another user, because %d is the uid of every user that is unknown on the host, and this uid cannot be allowed", schema.UnmappedUID)
	}
	return fmt.Sprintf(AskOperator+"keyhatchctl register DIR --allow-uid %d", uid)
}
