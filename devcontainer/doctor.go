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

// A Finding is the result of one check of doctor. It contains neither a secret nor a
// secret's name.
type Finding struct {
	Check   string // the name of the check: socket, secrets, or memory
	Problem string // one of the Problem constants, or "" if the check passed
	Detail  string
	Fix     string // how the user can solve the problem
}

// The problems that Diagnose reports.
const (
	ProblemMountMissing  = "mount_missing"
	ProblemStaleMount    = "stale_mount"
	ProblemNotRegistered = "not_registered"
	ProblemMadeByEngine  = "made_by_engine"
	ProblemNoPermission  = "no_permission"
	ProblemBrokerDown    = "broker_down"
	ProblemUIDRefused    = "uid_refused"
	ProblemProtocolSkew  = "protocol_skew"
	ProblemRefused       = "refused"
	ProblemNothingLoaded = "nothing_loaded"
	ProblemNotTmpfs      = "not_tmpfs"
	ProblemCodespaces    = "codespaces"
	ProblemDockerDesktop = "docker_desktop"
)

// recreateContainer is part of a fix. The mounts of an existing container cannot be
// changed, so the container must be created again.
const recreateContainer = "recreate the container (devcontainer up --remove-existing-container, or Rebuild Container in VS Code)"

// mountFix explains how to mount the project's directory into the container.
const mountFix = "use the keyhatch Feature, keyhatchctl up DIR, or docker run -v /run/keyhatch/projects/NAME:/run/keyhatch:ro; if the container is older than this setting, " + recreateContainer

// The fixes that several checks use.
const (
	installFix = "install the keyhatch command that belongs to the broker"
	retryFix   = "try again in a second; if the problem stays, run keyhatchctl doctor on the host"
)

// Platform describes the system that a container runs on.
type Platform struct {
	InCodespace   bool   // from the variable CODESPACES, which GitHub sets
	KernelRelease string // as uname -r prints it
	MemoryMount   string // the tmpfs for rendered files
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

// explainUnreachable replaces the problem of an unreachable socket if the platform
// explains the problem: a Unix socket of the user's machine cannot be used in a codespace
// or in another virtual machine.
func (p Platform) explainUnreachable(f Finding) Finding {
	switch f.Problem {
	case ProblemMountMissing, ProblemStaleMount, ProblemNotRegistered, ProblemMadeByEngine, ProblemBrokerDown:
	default:
		return f
	}
	const sameMachine = "a Unix socket works only within one machine: run keyhatchd and the sidecar "
	switch {
	case p.InCodespace:
		f.Problem, f.Fix = ProblemCodespaces, sameMachine+"in the codespace, or run this container on your own machine"
		f.Detail = "this container runs in a codespace, but the broker runs on another machine: " + f.Detail
	case strings.Contains(p.KernelRelease, "linuxkit"), strings.Contains(p.KernelRelease, "microsoft"):
		f.Problem, f.Fix = ProblemDockerDesktop, sameMachine+"in the engine's virtual machine or WSL distribution, then "+f.Fix
		f.Detail = "the container engine runs in a virtual machine (kernel " + p.KernelRelease + "): " + f.Detail
	}
	return f
}

// checkSocket checks that a broker answers on the socket. If no broker answers, it
// determines the cause. It returns the broker's answer to a ping, or nil.
func checkSocket(ctx context.Context, socket string) (result Finding, pong *schema.ProjectPingResponse) {
	finding := func(problem, fix, format string, args ...any) (Finding, *schema.ProjectPingResponse) {
		return Finding{"socket", problem, fmt.Sprintf(format, args...), fix}, nil
	}
	var stat unix.Stat_t
	err := unix.Stat(socket, &stat)
	switch {
	case err == unix.ENOENT || err == unix.ENOTDIR:
		return diagnoseMissingSocket(filepath.Dir(socket)), nil
	case err != nil:
		return finding(ProblemNoPermission, fmt.Sprintf("run keyhatch as a user that can access %s, for example as root", filepath.Dir(socket)), "cannot access %s as uid %d: %v", socket, os.Getuid(), err)
	case stat.Mode&unix.S_IFMT == unix.S_IFDIR:
		return finding(ProblemMadeByEngine, "mount the directory of the socket, not the socket itself; on the host, remove the directory broker.sock (rmdir) and run keyhatchctl register DIR; then "+recreateContainer,
			"%s is a directory: the container engine created it, because it had to mount a socket that did not exist", socket)
	case stat.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return finding(ProblemMadeByEngine, "mount the directory of the socket_path that keyhatchctl projects --json prints for the project, and "+recreateContainer, "%s is not a socket", socket)
	}
	answer, err := client.NewProject(socket).Ping(ctx, 0)
	switch {
	case err == nil && answer.ProtocolVersion == schema.ProtocolVersion:
		return Finding{Check: "socket", Detail: fmt.Sprintf("project %s is served by broker %s at %s", answer.Project, answer.BrokerVersion, socket)}, &answer
	case err == nil:
		return finding(ProblemProtocolSkew, installFix+", version "+answer.BrokerVersion,
			"the broker uses protocol version %d, but this keyhatch command uses version %d", answer.ProtocolVersion, schema.ProtocolVersion)
	case errors.Is(err, client.ErrProtocol):
		return finding(ProblemProtocolSkew, installFix, "%s: %v", socket, err)
	case client.CodeOf(err) == schema.CodePeerUnexpected:
		return finding(ProblemUIDRefused, RefusedUIDFix(err), "%v", err)
	case client.CodeOf(err) != "":
		return finding(ProblemRefused, retryFix, "%v", err)
	case errors.Is(err, fs.ErrPermission):
		return finding(ProblemNoPermission, "if the host uses SELinux, start the container with docker run --security-opt label=disable, or with security_opt in Compose", "%v", err)
	case errors.Is(err, unix.ECONNREFUSED) && (stat.Nlink == 0 || mountRoot(socket) != ""):
		return finding(ProblemStaleMount, "mount the directory of the socket, not the socket itself, because a restarted broker creates a new socket; then "+recreateContainer,
			"%s is a mounted socket on which no process listens anymore", socket)
	}
	return finding(ProblemBrokerDown, "start keyhatchd on the host: systemctl start keyhatch; this container and its mount do not have to change", "%v", err)
}

// diagnoseMissingSocket determines why dir does not contain a socket.
func diagnoseMissingSocket(dir string) Finding {
	finding := func(problem, fix, detail string) Finding { return Finding{"socket", problem, dir + " " + detail, fix} }
	var stat unix.Stat_t
	if err := unix.Stat(dir, &stat); err != nil {
		return finding(ProblemMountMissing, mountFix, "does not exist: the project's directory is not mounted into this container")
	}
	root := mountRoot(dir)
	switch {
	case stat.Nlink == 0:
		return finding(ProblemStaleMount, "run keyhatchctl register DIR on the host if the project is not registered; then restart the container, which mounts the directory again",
			"was mounted into this container and then deleted on the host")
	case root == "":
		return finding(ProblemMountMissing, mountFix, "is a normal directory of this container: the project's directory is not mounted there")
	case filepath.Base(filepath.Dir(root)) == "devcontainers":
		// The broker creates only links there, so the engine created this directory.
		return finding(ProblemMadeByEngine, "on the host, remove that directory (rmdir) and run keyhatchctl register DIR; then "+recreateContainer,
			"is the directory "+root+" of the host, which the container engine created because the project was not registered")
	}
	return finding(ProblemNotRegistered, "run keyhatchctl register DIR on the host; the socket then appears in this container",
		"is mounted but contains no socket: the project is not registered, or Compose created the directory before the project was registered")
}

// checkSecretsLoaded checks that the broker has a snapshot. It fetches no secret.
func checkSecretsLoaded(ctx context.Context, socket string) Finding {
	project := client.NewProject(socket)
	info, err := project.Info(ctx)
	if err == nil {
		// A request without names returns the generation but no secret.
		var answer schema.GetManyResponse
		if answer, err = project.GetMany(ctx, []schema.SecretName{}, 0); err == nil && answer.Generation > 0 {
			return Finding{Check: "secrets", Detail: fmt.Sprintf("the broker has secrets; the number of names that the manifest allows is %d", len(info.Allowlist))}
		}
	}
	if err != nil {
		return Finding{"secrets", ProblemRefused, err.Error(), retryFix}
	}
	return Finding{"secrets", ProblemNothingLoaded, "the broker has no secrets: the sidecar has not pushed since the broker started or was cleared",
		"start the sidecar (keyhatch-sidecar run); keyhatch run --wait 15s -- COMMAND waits for the secrets"}
}

// checkMemoryMount checks that rendered files would be in memory and not on a disk. The
// check is necessary because an engine can silently replace a Feature's tmpfs mount by a
// volume.
func checkMemoryMount(dir string) Finding {
	if err := checkTmpfs(dir); err != nil {
		return Finding{"memory", ProblemNotTmpfs, err.Error(), "start the container with --tmpfs " + dir + " (runArgs in devcontainer.json, tmpfs in Compose), or remove the mount that covers " + dir}
	}
	return Finding{Check: "memory", Detail: dir + " is a tmpfs"}
}

// mountRoot returns the file or directory that is mounted at path, as a path within its
// own file system. It returns "" if path is not a mount point.
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
		// proc_pid_mountinfo(5): id, parent, device, root, mount point.
		if fields := strings.Fields(line); len(fields) > 4 && unescape.Replace(fields[4]) == path {
			root = unescape.Replace(fields[3]) // a later mount at the same path covers an earlier one
		}
	}
	return root
}

// RefusedUID returns the uid in a broker's refusal (schema.CodePeerUnexpected). In a
// rootless container it differs from the uid that the process itself sees. If the message
// contains no uid, RefusedUID returns the uid of this process.
func RefusedUID(err error) int {
	var uid int
	if e, ok := errors.AsType[*client.Error](err); ok {
		if n, _ := fmt.Sscanf(e.Message, "uid %d ", &uid); n == 1 {
			return uid
		}
	}
	return os.Getuid()
}

// unmappedUID is the uid that the kernel reports to the broker for a user without a uid in
// the broker's user namespace (user_namespaces(7), overflowuid). The broker cannot allow
// it, because all such users have this uid.
const unmappedUID = 65534

// RefusedUIDFix returns the fix for a broker's refusal of this process's uid.
func RefusedUIDFix(err error) string {
	uid := RefusedUID(err)
	if uid == unmappedUID {
		return fmt.Sprintf("run keyhatch as another user, because %d is the uid of every user that is unknown on the host and cannot be allowed", unmappedUID)
	}
	return fmt.Sprintf("on the host, run keyhatchctl unregister DIR, then keyhatchctl register DIR --allow-uid %d", uid)
}
