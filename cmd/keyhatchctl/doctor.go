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
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// The problems that doctor can report.
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
	startSidecarFix  = "start the sidecar: keyhatch-sidecar run --store STORE, or start its dev container"
	devcontainersDir = "devcontainers"
)

func doctorCommand(o *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Diagnose problems with the broker and its projects",
		Long: `doctor checks the broker, its secrets, and every registered project: the
directory, the manifest, the socket, and the links that the Dev Container Feature
mounts. For each problem, it prints a fix. It does not change anything.

The exit code is 0 if there is no problem, and 1 otherwise. To check a container,
run keyhatch doctor in the container.`,
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
	for _, p := range status.Problems {
		findings = append(findings, checkProblem(p, status.ProjectsDir))
	}
	for _, p := range status.Projects {
		findings = append(findings, checkProject(p)...)
	}
	if len(status.Projects) == 0 {
		return append(findings, cli.Finding{Check: "projects", Detail: "no project is registered; run keyhatchctl register DIR to register one"})
	}
	return append(findings, checkRuntimeDir(runtimeDirFromSocket(status.Projects[0]))...)
}

// connectionProblem returns the finding for a failed status request.
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

// permissionFix describes how this user can get access to the admin socket.
func permissionFix() string {
	group, err := user.LookupGroup(adminGroup)
	if err != nil {
		return "run the command with sudo: group " + adminGroup + " does not exist on this machine"
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return "run the command with sudo"
	}
	// The user may have joined the group after the start of this session.
	if currentUser, err := user.Current(); err == nil {
		if groups, err := currentUser.GroupIds(); err == nil && slices.Contains(groups, group.Gid) {
			if sessionGIDs, err := os.Getgroups(); err == nil && !slices.Contains(sessionGIDs, gid) {
				return "log in again, or run newgrp " + adminGroup + ": you joined the group after the start of this session"
			}
		}
	}
	return "run sudo usermod -aG " + adminGroup + " $USER and log in again, or run the command with sudo. Members of the group can list the names of all secrets, and replace all secrets"
}

func checkVersion(s schema.StatusResponse) cli.Finding {
	if s.BrokerVersion == cli.Version {
		return cli.Finding{Check: "broker", Detail: fmt.Sprintf("version %s, protocol %d", s.BrokerVersion, s.ProtocolVersion)}
	}
	return cli.Finding{Check: "broker", Problem: problemVersionSkew,
		Detail: fmt.Sprintf("the broker has version %s, but this keyhatchctl has version %s; both use protocol %d", s.BrokerVersion, cli.Version, s.ProtocolVersion),
		Fix:    "install both from the same release, and restart keyhatchd"}
}

func checkMemory(s schema.StatusResponse) cli.Finding {
	if s.Memory != schema.MemoryUnlocked {
		return cli.Finding{Check: "memory", Detail: string(s.Memory)}
	}
	return cli.Finding{Check: "memory", Problem: problemMemoryUnlocked, Detail: "the secrets are not in locked memory and could be written to swap",
		Fix: "raise RLIMIT_MEMLOCK for keyhatchd (LimitMEMLOCK= in its unit, or ulimit -l in a shell), and restart keyhatchd"}
}

func checkSecretsLoaded(s schema.StatusResponse) cli.Finding {
	if s.SecretsLoadedAt == nil {
		return cli.Finding{Check: "secrets", Problem: problemNothingLoaded, Detail: "the broker has no secrets: the sidecar has not pushed since the broker started or was cleared", Fix: startSidecarFix}
	}
	return cli.Finding{Check: "secrets", Detail: cli.Plural(s.SecretCount, "secret") + " loaded"}
}

// checkProblem returns a finding for a difference between the served projects and those
// that are declared or stored.
func checkProblem(p schema.ProjectProblem, projectsDir string) cli.Finding {
	name := cli.ShellQuote(p.Project)
	f := cli.Finding{Check: "project " + cli.Printable(p.Project), Problem: string(p.Problem), Detail: cli.Printable(p.Message)}
	const serveDeclaration = "sudo systemctl reload keyhatch"
	switch p.Problem {
	case schema.ProblemNotDeclared:
		f.Fix = serveDeclaration + " to serve the declaration, or sudo keyhatchctl register --persist " + cli.ShellQuote(p.ProjectPath) + " to declare the project as its manifest is now"
	case schema.ProblemNotApplied:
		f.Fix = "run keyhatchd --check-config to see the error, correct " + cli.ShellQuote(filepath.Join(projectsDir, p.Project+".yaml")) + ", and run " + serveDeclaration
	case schema.ProblemNotRestored:
		f.Fix = "correct the manifest and run keyhatchctl register " + cli.ShellQuote(p.ProjectPath) + ", or run keyhatchctl unregister " + name
	}
	return f
}

// checkProject returns the problems of a project, or one finding without a problem.
func checkProject(p schema.ProjectStatus) (findings []cli.Finding) {
	check := "project " + string(p.Name)
	addProblem := func(problem, fix, detail string) {
		findings = append(findings, cli.Finding{Check: check, Problem: problem, Detail: detail, Fix: fix})
	}
	reregisterFix := "keyhatchctl register " + cli.ShellQuote(p.ProjectPath)
	if info, err := os.Stat(p.ProjectPath); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		addProblem(problemPathGone, "keyhatchctl unregister "+string(p.Name), cli.Printable(p.ProjectPath)+" does not exist, but the project is still registered")
	} else if state := manifestState(p); state != "approved" {
		addProblem(problemManifestChanged, "keyhatchctl reload "+string(p.Name), "the manifest "+manifestStateText(state)+"; the approved manifest is still in effect")
	}
	// If this user has no permission, the socket may exist.
	if _, err := os.Lstat(p.SocketPath); errors.Is(err, fs.ErrNotExist) {
		addProblem(problemSocketMissing, "wait a minute, because the broker creates the socket again; if it does not, read the broker's log", p.SocketPath+" was removed while the broker was running")
	}
	if missing := countMissingLinks(p); missing > 0 {
		addProblem(problemLinkMissing, reregisterFix, cli.Plural(missing, "link")+" for the Dev Container Feature missing: a devcontainer.json was created after the registration")
	}
	if len(findings) == 0 {
		findings = []cli.Finding{{Check: check, Detail: cli.Plural(p.AllowlistSize, "secret") + " allowed, served at " + p.SocketPath}}
	}
	return findings
}

func runtimeDirFromSocket(p schema.ProjectStatus) string {
	return filepath.Dir(filepath.Dir(filepath.Dir(p.SocketPath)))
}

// countMissingLinks counts the links that do not exist but that a new registration
// would create.
func countMissingLinks(p schema.ProjectStatus) (missing int) {
	directory, err := os.Readlink(filepath.Dir(p.SocketPath))
	if err != nil {
		return 0 // this user cannot see the links
	}
	for _, id := range devcontainerIDs(p.ProjectPath) {
		target, err := os.Readlink(filepath.Join(runtimeDirFromSocket(p), devcontainersDir, string(id)))
		if errors.Is(err, fs.ErrNotExist) || err == nil && filepath.Base(target) != directory {
			missing++
		}
	}
	return missing
}

// checkRuntimeDir finds directories that a container engine created. An engine creates
// a missing mount source if a container starts before its project is registered.
func checkRuntimeDir(dir string) (findings []cli.Finding) {
	addProblem := func(paths ...string) {
		findings = append(findings, cli.Finding{Check: "runtime directory", Problem: problemMadeByEngine,
			Detail: paths[0] + " was created by a container engine, because a container started before its project was registered",
			Fix:    "rmdir " + strings.Join(paths, " ") + ", then keyhatchctl register DIR, and then recreate the container"})
	}
	for _, entry := range listDir(dir, devcontainersDir) {
		if entry.IsDir() {
			addProblem(filepath.Join(dir, devcontainersDir, entry.Name()))
		}
	}
	for _, entry := range listDir(dir, "projects") {
		path := filepath.Join(dir, "projects", entry.Name())
		socket := filepath.Join(path, "broker.sock")
		info, err := os.Lstat(socket)
		isDir := err == nil && info.IsDir()
		switch belongsToBroker := strings.HasPrefix(entry.Name(), "."); {
		case !entry.IsDir(): // a link of the broker
		case belongsToBroker && isDir:
			addProblem(socket)
		case !belongsToBroker && isDir:
			addProblem(socket, path)
		case !belongsToBroker:
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
