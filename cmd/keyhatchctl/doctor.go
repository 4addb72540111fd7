package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// The problems that doctor names.
const (
	problemNoPermission    = "no_permission"
	problemBrokerDown      = "broker_down"
	problemProtocolSkew    = "protocol_skew"
	problemVersionSkew     = "version_skew"
	problemRefused         = "refused"
	problemMemoryUnlocked  = "memory_unlocked"
	problemNothingLoaded   = "nothing_loaded"
	problemPathGone        = "path_gone"
	problemManifestChanged = "manifest_changed"
	problemSocketMissing   = "socket_missing"
	problemLinkMissing     = "link_missing"
	problemMadeByEngine    = "made_by_engine"
)

const (
	adminGroup       = "keyhatch"
	reregisterFormat = "keyhatchctl unregister %[1]s, then keyhatchctl register %[2]s"
	startSidecarFix  = "start the sidecar: keyhatch-sidecar run --store ..., or its dev container"
	devcontainersDir = "devcontainers"
)

func doctorCommand(o *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong with the broker and its projects, and what to do about it",
		Long: `doctor looks at the broker, what it holds, and every registered project: its
directory, its manifest, its socket and the links that the Dev Container Feature
mounts. It changes nothing. The exit code is 0 only where all is well. Inside a
container, keyhatch doctor looks at the other end.`,
		Example: `  keyhatchctl doctor
  keyhatchctl --json doctor | jq -r '.findings[] | select(.problem).fix'`,
		RunE: func(c *cobra.Command, _ []string) error {
			return cli.PrintFindings(c.OutOrStdout(), checkAll(c.Context(), o), o.asJSON)
		},
	}
}

// checkAll checks the broker, every registered project, and the runtime directory.
func checkAll(ctx context.Context, o *globalOptions) []cli.Finding {
	var status schema.StatusResponse
	if err := o.withAdmin(ctx, func(admin *client.Admin) (err error) {
		status, err = admin.Status(ctx)
		return err
	}); err != nil {
		return []cli.Finding{connectionProblem(err)}
	}
	findings := []cli.Finding{checkVersion(status), checkMemory(status), checkSecretsLoaded(status)}
	for _, p := range status.Projects {
		findings = append(findings, checkProject(p)...)
	}
	if len(status.Projects) == 0 {
		return append(findings, cli.Finding{Check: "projects", Detail: "none is registered; keyhatchctl register DIR brings one online"})
	}
	return append(findings, checkRuntimeDir(runtimeDirOf(status.Projects[0]))...)
}

// connectionProblem explains the error of a failed status request.
func connectionProblem(err error) cli.Finding {
	f := cli.Finding{Check: "broker", Problem: problemRefused, Detail: err.Error()}
	if failure, ok := errors.AsType[*cli.Error](err); ok {
		f.Fix = failure.Hint
	}
	switch {
	case errors.Is(err, errProtocolSkew), errors.Is(err, client.ErrProtocol):
		f.Problem = problemProtocolSkew
	case errors.Is(err, client.ErrUnreachable) && errors.Is(err, fs.ErrPermission):
		f.Problem, f.Fix = problemNoPermission, permissionFix()
	case errors.Is(err, client.ErrUnreachable):
		f.Problem = problemBrokerDown
	}
	return f
}

// permissionFix returns how this user gets access to the admin socket.
func permissionFix() string {
	group, err := user.LookupGroup(adminGroup)
	if err != nil {
		return "use sudo: there is no group " + adminGroup + " on this machine"
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return "use sudo"
	}
	// The database may know of a membership that this session is older than.
	if currentUser, err := user.Current(); err == nil {
		if groups, err := currentUser.GroupIds(); err == nil && slices.Contains(groups, group.Gid) {
			if sessionGIDs, err := os.Getgroups(); err == nil && !slices.Contains(sessionGIDs, gid) {
				return "you are in group " + adminGroup + " and this session is older than that: log in again, or newgrp " + adminGroup
			}
		}
	}
	return "sudo usermod -aG " + adminGroup + " $USER, and log in again; or use sudo. Members can read every secret's name and replace all"
}

func checkVersion(s schema.StatusResponse) cli.Finding {
	if s.BrokerVersion == cli.Version {
		return cli.Finding{Check: "broker", Detail: fmt.Sprintf("version %s, protocol %d", s.BrokerVersion, s.ProtocolVersion)}
	}
	return cli.Finding{Check: "broker", Problem: problemVersionSkew,
		Detail: fmt.Sprintf("the broker is %s, and this keyhatchctl %s; both speak protocol %d", s.BrokerVersion, cli.Version, s.ProtocolVersion),
		Fix:    "install both from one release, and restart keyhatchd"}
}

func checkMemory(s schema.StatusResponse) cli.Finding {
	if s.Memory != schema.MemoryUnlocked {
		return cli.Finding{Check: "memory", Detail: string(s.Memory)}
	}
	return cli.Finding{Check: "memory", Problem: problemMemoryUnlocked, Detail: "the secrets could be swapped out to a disk",
		Fix: "raise RLIMIT_MEMLOCK for keyhatchd (LimitMEMLOCK= in its unit, ulimit -l in a shell), and restart it"}
}

func checkSecretsLoaded(s schema.StatusResponse) cli.Finding {
	if s.SecretsLoadedAt == nil {
		return cli.Finding{Check: "secrets", Problem: problemNothingLoaded, Detail: "nothing was pushed since the start or the last clear", Fix: startSidecarFix}
	}
	return cli.Finding{Check: "secrets", Detail: fmt.Sprintf("%d loaded", s.SecretCount)}
}

// checkProject returns the problems of one project, or one finding that it is ok.
func checkProject(p schema.ProjectStatus) (findings []cli.Finding) {
	check := "project " + string(p.Name)
	addProblem := func(problem, fix, detail string) {
		findings = append(findings, cli.Finding{Check: check, Problem: problem, Detail: detail, Fix: fix})
	}
	reregisterFix := fmt.Sprintf(reregisterFormat, p.Name, p.ProjectPath)
	if info, err := os.Stat(p.ProjectPath); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		addProblem(problemPathGone, "keyhatchctl unregister "+string(p.Name), p.ProjectPath+" is gone, and its secrets are still served")
	} else if state := manifestState(p); state != "approved" {
		addProblem(problemManifestChanged, "keyhatchctl reload "+string(p.Name)+" shows the change and asks", "the manifest is "+state+"; what was approved is served")
	}
	// Nothing is known where this user may not look.
	if _, err := os.Lstat(p.SocketPath); errors.Is(err, fs.ErrNotExist) {
		addProblem(problemSocketMissing, reregisterFix+"; restart its containers", p.SocketPath+" was removed under the broker")
	}
	if missing := countMissingLinks(p); missing > 0 {
		addProblem(problemLinkMissing, reregisterFix, fmt.Sprintf("%d of the links that the Dev Container Feature mounts are not there: a devcontainer.json is newer than the registration", missing))
	}
	if len(findings) == 0 {
		findings = []cli.Finding{{Check: check, Detail: cli.Plural(p.AllowlistSize, "secret") + " allowed, served at " + p.SocketPath}}
	}
	return findings
}

func runtimeDirOf(p schema.ProjectStatus) string {
	return filepath.Dir(filepath.Dir(filepath.Dir(p.SocketPath)))
}

// countMissingLinks counts the links that a new registration would make and that
// do not exist.
func countMissingLinks(p schema.ProjectStatus) (missing int) {
	ids, err := devcontainerIDs(p.ProjectPath, p.ProjectPath)
	if err != nil {
		return 0
	}
	for _, id := range ids {
		target, err := os.Readlink(filepath.Join(runtimeDirOf(p), devcontainersDir, string(id)))
		if errors.Is(err, fs.ErrNotExist) || err == nil && filepath.Base(target) != string(p.Name) {
			missing++
		}
	}
	return missing
}

// checkRuntimeDir finds directories that a container engine made in the broker's
// place, because a container was started before its project was registered.
func checkRuntimeDir(dir string) (findings []cli.Finding) {
	addProblem := func(path string) {
		findings = append(findings, cli.Finding{Check: "runtime directory", Problem: problemMadeByEngine,
			Detail: path + " was made by a container engine, before the project was registered",
			Fix:    "rmdir " + path + ", keyhatchctl register DIR, and make the container anew"})
	}
	for _, entry := range listDir(dir, devcontainersDir) {
		if entry.IsDir() {
			addProblem(filepath.Join(dir, devcontainersDir, entry.Name()))
		}
	}
	owner, ownerKnown := ownerOf(dir)
	for _, entry := range listDir(dir, "projects") {
		path := filepath.Join(dir, "projects", entry.Name())
		if info, err := os.Lstat(filepath.Join(path, "broker.sock")); err == nil && info.IsDir() {
			addProblem(filepath.Join(path, "broker.sock"))
		} else if pathOwner, pathOwnerKnown := ownerOf(path); ownerKnown && pathOwnerKnown && pathOwner != owner {
			addProblem(path)
		}
	}
	return findings
}

// listDir lists a directory. If this user cannot read it, the list is empty.
func listDir(dir, name string) []fs.DirEntry {
	entries, _ := os.ReadDir(filepath.Join(dir, name))
	return entries
}

func ownerOf(path string) (uid uint32, ok bool) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, false
	}
	return info.Sys().(*syscall.Stat_t).Uid, true
}
