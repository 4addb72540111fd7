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

// The problems that Examine names.
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

// anew is how a container gets another mount than it was made with.
const anew = "make the container anew (devcontainer up --remove-existing-container, or Rebuild Container)"

// Surroundings are what says where a container runs.
type Surroundings struct {
	Codespaces bool   // GitHub sets CODESPACES there
	Kernel     string // its release, as uname -r says it
	Memory     string // the directory that files are rendered to
}

// Here returns this process's own surroundings.
func Here() Surroundings {
	here := Surroundings{Codespaces: os.Getenv("CODESPACES") != "", Memory: "/dev/shm"}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		here.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return here
}

// Examine looks at everything between this process and its secrets, and names
// what is wrong. It fetches no secret.
func Examine(ctx context.Context, socket string, where Surroundings) []Finding {
	reach, pong := examineSocket(ctx, socket)
	findings := []Finding{where.explain(reach)}
	if pong != nil {
		findings = append(findings, examineSecrets(ctx, socket))
	}
	return append(findings, examineMemory(where.Memory))
}

// explain names the reason behind a socket that cannot be had, where the whole
// machine is one to which it could not come.
func (s Surroundings) explain(f Finding) Finding {
	switch f.Problem {
	case ProblemMountMissing, ProblemStaleMount, ProblemNotRegistered, ProblemMadeByEngine, ProblemBrokerDown:
	default:
		return f
	}
	const beside = "a Unix socket does not leave the machine that it is on: run keyhatchd and the sidecar "
	switch {
	case s.Codespaces:
		f.Problem, f.Fix = ProblemCodespaces, beside+"in the codespace, or this container on your own machine"
		f.Detail = "this is a codespace, and your broker is elsewhere: " + f.Detail
	case strings.Contains(s.Kernel, "linuxkit"), strings.Contains(s.Kernel, "microsoft"):
		f.Problem, f.Fix = ProblemDockerDesktop, beside+"in the virtual machine or the WSL distribution that the engine is in; then: "+f.Fix
		f.Detail = "the engine is in a virtual machine (kernel " + s.Kernel + "): " + f.Detail
	}
	return f
}

// examineSocket sees whether a broker answers on the socket, and if not why.
func examineSocket(ctx context.Context, socket string) (Finding, *schema.ProjectPingResponse) {
	wrong := func(problem, fix, format string, args ...any) (Finding, *schema.ProjectPingResponse) {
		return Finding{"socket", problem, fmt.Sprintf(format, args...), fix}, nil
	}
	var st unix.Stat_t
	err := unix.Stat(socket, &st)
	switch {
	case err == unix.ENOENT || err == unix.ENOTDIR:
		return examineMount(filepath.Dir(socket)), nil
	case err != nil:
		return wrong(ProblemNoPermission, "run it as a user who may look there", "%s: %v", socket, err)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return wrong(ProblemMadeByEngine, "mount the directory that the socket is in, not the socket; on the host remove the directory broker.sock (rmdir), keyhatchctl register DIR, and "+anew,
			"%s is a directory: an engine made it, because the socket was to be mounted and was not there", socket)
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return wrong(ProblemMadeByEngine, "mount the project's directory, which keyhatchctl projects --json names, and "+anew, "%s is no socket", socket)
	}
	pong, err := client.NewProject(socket).Ping(ctx, 0)
	switch {
	case err == nil && pong.ProtocolVersion == schema.ProtocolVersion:
		return Finding{Check: "socket", Detail: fmt.Sprintf("project %s is served by broker %s at %s", pong.Project, pong.BrokerVersion, socket)}, &pong
	case err == nil:
		return wrong(ProblemProtocolSkew, "install the keyhatch that came with the broker, version "+pong.BrokerVersion,
			"the broker speaks protocol %d, and this keyhatch %d", pong.ProtocolVersion, schema.ProtocolVersion)
	case errors.Is(err, client.ErrProtocol):
		return wrong(ProblemProtocolSkew, "install the keyhatch that came with the broker", "%s: %v", socket, err)
	case client.CodeOf(err) == schema.CodePeerUnexpected:
		return wrong(ProblemUIDRefused, fmt.Sprintf("on the host: keyhatchctl unregister DIR, then keyhatchctl register DIR --allow-uid %d", RefusedUID(err)), "%v", err)
	case client.CodeOf(err) != "":
		return wrong(ProblemRefused, "try again in a second; keyhatchctl doctor looks at the broker", "%v", err)
	case errors.Is(err, fs.ErrPermission):
		return wrong(ProblemNoPermission, "where SELinux confines containers: docker run --security-opt label=disable, or security_opt in Compose", "%v", err)
	case errors.Is(err, unix.ECONNREFUSED) && (st.Nlink == 0 || mountAt(socket) != ""):
		return wrong(ProblemStaleMount, "mount the directory that the socket is in, not the socket, which a restarted broker makes anew; and "+anew,
			"%s is a mounted socket on which nobody listens any more", socket)
	}
	return wrong(ProblemBrokerDown, "on the host: start keyhatchd (systemctl start keyhatch); nothing is to be done here, the mount stays good", "%v", err)
}

// examineMount says why there is no socket in dir.
func examineMount(dir string) Finding {
	wrong := func(problem, fix, detail string) Finding { return Finding{"socket", problem, dir + " " + detail, fix} }
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return wrong(ProblemMountMissing, mountFix(), "is not there: the project's directory is not mounted into this container")
	}
	from := mountAt(dir)
	switch {
	case st.Nlink == 0:
		return wrong(ProblemStaleMount, "restart the container, which mounts it again; on the host: keyhatchctl register DIR, if that was not done yet",
			"is mounted, and was deleted on the host since")
	case from == "":
		return wrong(ProblemMountMissing, mountFix(), "is an ordinary directory: the project's is not mounted on it")
	case filepath.Base(filepath.Dir(from)) == "devcontainers":
		// The broker makes links there, and nothing else.
		return wrong(ProblemMadeByEngine, "on the host: remove that directory (rmdir), keyhatchctl register DIR, and "+anew,
			"is "+from+" on the host, which an engine made because the project was not registered")
	}
	return wrong(ProblemNotRegistered, "on the host: keyhatchctl register DIR; nothing is to be done here, the socket then appears",
		"is mounted and has no socket: the project is not registered, or no longer, or Compose made the directory before it was")
}

func mountFix() string {
	return "use the keyhatch Feature, keyhatchctl up DIR, or docker run -v /run/keyhatch/projects/NAME:/run/keyhatch:ro; where that was done since, " + anew
}

func examineSecrets(ctx context.Context, socket string) Finding {
	project := client.NewProject(socket)
	info, err := project.Info(ctx)
	if err == nil {
		// No name is asked for: only whether there is a set.
		var set schema.GetManyResponse
		if set, err = project.GetMany(ctx, []schema.SecretName{}, 0); err == nil && set.Generation > 0 {
			return Finding{Check: "secrets", Detail: fmt.Sprintf("loaded; the manifest allows %d", len(info.Allowlist))}
		}
	}
	if err != nil {
		return Finding{"secrets", ProblemRefused, err.Error(), "try again in a second; keyhatchctl doctor looks at the broker"}
	}
	return Finding{"secrets", ProblemNothingLoaded, "nothing was pushed since the broker's start, or since it was cleared",
		"start the sidecar (keyhatch-sidecar run); keyhatch run --wait 15s waits for its push"}
}

// examineMemory sees that rendered files would be in memory and on no disk: a
// Feature's tmpfs mount can silently be a volume.
func examineMemory(dir string) Finding {
	if err := inMemory(dir); err != nil {
		return Finding{"memory", ProblemNotTmpfs, err.Error(), "start the container with --tmpfs " + dir + " (runArgs in devcontainer.json, tmpfs: in Compose), or without the mount that hides it"}
	}
	return Finding{Check: "memory", Detail: dir + " is a tmpfs"}
}

// mountAt returns what on its file system is mounted at path itself, or "".
func mountAt(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	from := ""
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(text)) {
		// proc_pid_mountinfo(5): id, parent, device, root, mount point.
		if fields := strings.Fields(line); len(fields) > 4 && unescape.Replace(fields[4]) == path {
			from = unescape.Replace(fields[3]) // the last is on top
		}
	}
	return from
}

// RefusedUID is this user's uid as the broker that refused it sees it: in a
// rootless container it is another than here, and no file here says which.
func RefusedUID(refusal error) int {
	var uid int
	if e, ok := errors.AsType[*client.Error](refusal); ok {
		if n, _ := fmt.Sscanf(e.Message, "uid %d may not", &uid); n == 1 {
			return uid
		}
	}
	return os.Getuid()
}
