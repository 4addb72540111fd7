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

// A Finding is what doctor says of one thing that it looked at. None holds a
// secret, or the name of one.
type Finding struct {
	Check   string // what was looked at
	Problem string // "" where all is well
	Detail  string
	Fix     string // what to do about the problem
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

// recreateContainer is how a container gets another mount than it was made with.
const recreateContainer = "make the container anew (devcontainer up --remove-existing-container, or Rebuild Container)"

// mountFix is how a container gets its project's directory.
const mountFix = "use the keyhatch Feature, keyhatchctl up DIR, or docker run -v /run/keyhatch/projects/NAME:/run/keyhatch:ro; where that was done since, " + recreateContainer

// Platform is where a container runs.
type Platform struct {
	InCodespace   bool   // GitHub sets CODESPACES there
	KernelRelease string // as uname -r prints it
	MemoryMount   string // the directory that files are rendered to
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

// Diagnose looks at everything between this process and its secrets, and names
// what is wrong. It fetches no secret.
func Diagnose(ctx context.Context, socket string, platform Platform) []Finding {
	socketFinding, pong := checkSocket(ctx, socket)
	findings := []Finding{platform.explainUnreachable(socketFinding)}
	if pong != nil {
		findings = append(findings, checkSecretsLoaded(ctx, socket))
	}
	return append(findings, checkMemoryMount(platform.MemoryMount))
}

// explainUnreachable replaces the problem of an unreachable socket if the platform
// explains it: no socket of the user's machine gets into a codespace or another
// virtual machine.
func (p Platform) explainUnreachable(f Finding) Finding {
	switch f.Problem {
	case ProblemMountMissing, ProblemStaleMount, ProblemNotRegistered, ProblemMadeByEngine, ProblemBrokerDown:
	default:
		return f
	}
	const sameMachine = "a Unix socket does not leave the machine that it is on: run keyhatchd and the sidecar "
	switch {
	case p.InCodespace:
		f.Problem, f.Fix = ProblemCodespaces, sameMachine+"in the codespace, or this container on your own machine"
		f.Detail = "this is a codespace, and your broker is elsewhere: " + f.Detail
	case strings.Contains(p.KernelRelease, "linuxkit"), strings.Contains(p.KernelRelease, "microsoft"):
		f.Problem, f.Fix = ProblemDockerDesktop, sameMachine+"in the virtual machine or the WSL distribution that the engine is in; then: "+f.Fix
		f.Detail = "the engine is in a virtual machine (kernel " + p.KernelRelease + "): " + f.Detail
	}
	return f
}

// checkSocket checks that a broker answers on the socket, or finds out why none does.
// It returns the broker's answer, or nil.
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
		return finding(ProblemNoPermission, "run it as a user who may look there", "%s: %v", socket, err)
	case stat.Mode&unix.S_IFMT == unix.S_IFDIR:
		return finding(ProblemMadeByEngine, "mount the directory that the socket is in, not the socket; on the host remove the directory broker.sock (rmdir), keyhatchctl register DIR, and "+recreateContainer,
			"%s is a directory: an engine made it, because the socket was to be mounted and was not there", socket)
	case stat.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return finding(ProblemMadeByEngine, "mount the project's directory, which keyhatchctl projects --json names, and "+recreateContainer, "%s is no socket", socket)
	}
	answer, err := client.NewProject(socket).Ping(ctx, 0)
	switch {
	case err == nil && answer.ProtocolVersion == schema.ProtocolVersion:
		return Finding{Check: "socket", Detail: fmt.Sprintf("project %s is served by broker %s at %s", answer.Project, answer.BrokerVersion, socket)}, &answer
	case err == nil:
		return finding(ProblemProtocolSkew, "install the keyhatch that came with the broker, version "+answer.BrokerVersion,
			"the broker speaks protocol %d, and this keyhatch %d", answer.ProtocolVersion, schema.ProtocolVersion)
	case errors.Is(err, client.ErrProtocol):
		return finding(ProblemProtocolSkew, "install the keyhatch that came with the broker", "%s: %v", socket, err)
	case client.CodeOf(err) == schema.CodePeerUnexpected:
		return finding(ProblemUIDRefused, fmt.Sprintf("on the host: keyhatchctl unregister DIR, then keyhatchctl register DIR --allow-uid %d", RefusedUID(err)), "%v", err)
	case client.CodeOf(err) != "":
		return finding(ProblemRefused, "try again in a second; keyhatchctl doctor looks at the broker", "%v", err)
	case errors.Is(err, fs.ErrPermission):
		return finding(ProblemNoPermission, "where SELinux confines containers: docker run --security-opt label=disable, or security_opt in Compose", "%v", err)
	case errors.Is(err, unix.ECONNREFUSED) && (stat.Nlink == 0 || mountRoot(socket) != ""):
		return finding(ProblemStaleMount, "mount the directory that the socket is in, not the socket, which a restarted broker makes anew; and "+recreateContainer,
			"%s is a mounted socket on which nobody listens any more", socket)
	}
	return finding(ProblemBrokerDown, "on the host: start keyhatchd (systemctl start keyhatch); nothing is to be done here, the mount stays good", "%v", err)
}

// diagnoseMissingSocket finds out why dir has no socket.
func diagnoseMissingSocket(dir string) Finding {
	finding := func(problem, fix, detail string) Finding { return Finding{"socket", problem, dir + " " + detail, fix} }
	var stat unix.Stat_t
	if err := unix.Stat(dir, &stat); err != nil {
		return finding(ProblemMountMissing, mountFix, "is not there: the project's directory is not mounted into this container")
	}
	root := mountRoot(dir)
	switch {
	case stat.Nlink == 0:
		return finding(ProblemStaleMount, "restart the container, which mounts it again; on the host: keyhatchctl register DIR, if that was not done yet",
			"is mounted, and was deleted on the host since")
	case root == "":
		return finding(ProblemMountMissing, mountFix, "is an ordinary directory: the project's is not mounted on it")
	case filepath.Base(filepath.Dir(root)) == "devcontainers":
		// The broker makes links there, and nothing else.
		return finding(ProblemMadeByEngine, "on the host: remove that directory (rmdir), keyhatchctl register DIR, and "+recreateContainer,
			"is "+root+" on the host, which an engine made because the project was not registered")
	}
	return finding(ProblemNotRegistered, "on the host: keyhatchctl register DIR; nothing is to be done here, the socket then appears",
		"is mounted and has no socket: the project is not registered, or no longer, or Compose made the directory before it was")
}

// checkSecretsLoaded checks that the broker has secrets. It fetches none.
func checkSecretsLoaded(ctx context.Context, socket string) Finding {
	project := client.NewProject(socket)
	info, err := project.Info(ctx)
	if err == nil {
		// No name is asked for: only whether there is a set.
		var answer schema.GetManyResponse
		if answer, err = project.GetMany(ctx, []schema.SecretName{}, 0); err == nil && answer.Generation > 0 {
			return Finding{Check: "secrets", Detail: fmt.Sprintf("loaded; the manifest allows %d", len(info.Allowlist))}
		}
	}
	if err != nil {
		return Finding{"secrets", ProblemRefused, err.Error(), "try again in a second; keyhatchctl doctor looks at the broker"}
	}
	return Finding{"secrets", ProblemNothingLoaded, "nothing was pushed since the broker's start, or since it was cleared",
		"start the sidecar (keyhatch-sidecar run); keyhatch run --wait 15s waits for its push"}
}

// checkMemoryMount checks that rendered files would be in memory and not on a disk: a
// Feature's tmpfs mount can silently be a volume.
func checkMemoryMount(dir string) Finding {
	if err := checkTmpfs(dir); err != nil {
		return Finding{"memory", ProblemNotTmpfs, err.Error(), "start the container with --tmpfs " + dir + " (runArgs in devcontainer.json, tmpfs: in Compose), or without the mount that hides it"}
	}
	return Finding{Check: "memory", Detail: dir + " is a tmpfs"}
}

// mountRoot returns the directory, on its own file system, that is mounted at path. It
// is empty if path is not a mount point.
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
			root = unescape.Replace(fields[3]) // the last is on top
		}
	}
	return root
}

// RefusedUID is this user's uid as the broker that refused it sees it: in a
// rootless container it is another than here, and no file here says which.
func RefusedUID(err error) int {
	var uid int
	if e, ok := errors.AsType[*client.Error](err); ok {
		if n, _ := fmt.Sscanf(e.Message, "uid %d may not", &uid); n == 1 {
			return uid
		}
	}
	return os.Getuid()
}
