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
	problemNoPermission  = "no_permission"
	problemBrokerDown    = "broker_down"
	problemProtocolSkew  = "protocol_skew"
	problemVersionSkew   = "version_skew"
	problemRefused       = "refused"
	problemUnlocked      = "memory_unlocked"
	problemNothingLoaded = "nothing_loaded"
	problemPathGone      = "path_gone"
	problemManifest      = "manifest_changed"
	problemSocketMissing = "socket_missing"
	problemLinkMissing   = "link_missing"
	problemMadeByEngine  = "made_by_engine"
)

const (
	adminGroup            = "keyhatch"
	reregister            = "keyhatchctl unregister %[1]s, then keyhatchctl register %[2]s"
	startSidecar          = "start the sidecar: keyhatch-sidecar run --store ..., or its dev container"
	devcontainerDirectory = "devcontainers"
)

func doctorCommand(o *operator) *cobra.Command {
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
			return cli.PrintFindings(c.OutOrStdout(), examine(c.Context(), o), o.asJSON)
		},
	}
}

// examine looks at everything that the admin socket and this machine's files
// say.
func examine(ctx context.Context, o *operator) []cli.Finding {
	var status schema.StatusResponse
	if err := o.with(ctx, func(admin *client.Admin) (err error) {
		status, err = admin.Status(ctx)
		return err
	}); err != nil {
		return []cli.Finding{unreached(err)}
	}
	findings := []cli.Finding{sameVersion(status), memory(status), loaded(status)}
	for _, p := range status.Projects {
		findings = append(findings, examineProject(p)...)
	}
	if len(status.Projects) == 0 {
		return append(findings, cli.Finding{Check: "projects", Detail: "none is registered; keyhatchctl register DIR brings one online"})
	}
	return append(findings, examineRuntimeDir(runtimeDir(status.Projects[0]))...)
}

// unreached says why the broker gave no status.
func unreached(err error) cli.Finding {
	f := cli.Finding{Check: "broker", Problem: problemRefused, Detail: err.Error()}
	if failure, ok := errors.AsType[*cli.Failure](err); ok {
		f.Fix = failure.Hint
	}
	switch {
	case errors.Is(err, errProtocolSkew), errors.Is(err, client.ErrProtocol):
		f.Problem = problemProtocolSkew
	case errors.Is(err, client.ErrUnreachable) && errors.Is(err, fs.ErrPermission):
		f.Problem, f.Fix = problemNoPermission, joinGroup()
	case errors.Is(err, client.ErrUnreachable):
		f.Problem = problemBrokerDown
	}
	return f
}

// joinGroup is the way to the admin socket for a user who has none.
func joinGroup() string {
	group, err := user.LookupGroup(adminGroup)
	if err != nil {
		return "use sudo: there is no group " + adminGroup + " on this machine"
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return "use sudo"
	}
	// The database may know of a membership that this session is older than.
	if me, err := user.Current(); err == nil {
		if groups, err := me.GroupIds(); err == nil && slices.Contains(groups, group.Gid) {
			if mine, err := os.Getgroups(); err == nil && !slices.Contains(mine, gid) {
				return "you are in group " + adminGroup + " and this session is older than that: log in again, or newgrp " + adminGroup
			}
		}
	}
	return "sudo usermod -aG " + adminGroup + " $USER, and log in again; or use sudo. Members can read every secret's name and replace all"
}

func sameVersion(s schema.StatusResponse) cli.Finding {
	if s.BrokerVersion == cli.Version {
		return cli.Finding{Check: "broker", Detail: fmt.Sprintf("version %s, protocol %d", s.BrokerVersion, s.ProtocolVersion)}
	}
	return cli.Finding{Check: "broker", Problem: problemVersionSkew,
		Detail: fmt.Sprintf("the broker is %s, and this keyhatchctl %s; both speak protocol %d", s.BrokerVersion, cli.Version, s.ProtocolVersion),
		Fix:    "install both from one release, and restart keyhatchd"}
}

func memory(s schema.StatusResponse) cli.Finding {
	if s.Memory != schema.MemoryUnlocked {
		return cli.Finding{Check: "memory", Detail: string(s.Memory)}
	}
	return cli.Finding{Check: "memory", Problem: problemUnlocked, Detail: "the secrets could be swapped out to a disk",
		Fix: "raise RLIMIT_MEMLOCK for keyhatchd (LimitMEMLOCK= in its unit, ulimit -l in a shell), and restart it"}
}

func loaded(s schema.StatusResponse) cli.Finding {
	if s.SecretsLoadedAt == nil {
		return cli.Finding{Check: "secrets", Problem: problemNothingLoaded, Detail: "nothing was pushed since the start or the last clear", Fix: startSidecar}
	}
	return cli.Finding{Check: "secrets", Detail: fmt.Sprintf("%d loaded", s.SecretCount)}
}

// examineProject names each thing that is wrong with one project.
func examineProject(p schema.ProjectStatus) (findings []cli.Finding) {
	check := "project " + string(p.Name)
	wrong := func(problem, fix, detail string) {
		findings = append(findings, cli.Finding{Check: check, Problem: problem, Detail: detail, Fix: fix})
	}
	again := fmt.Sprintf(reregister, p.Name, p.ProjectPath)
	if info, err := os.Stat(p.ProjectPath); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		wrong(problemPathGone, "keyhatchctl unregister "+string(p.Name), p.ProjectPath+" is gone, and its secrets are still served")
	} else if state := drift(p); state != "approved" {
		wrong(problemManifest, "keyhatchctl reload "+string(p.Name)+" shows the change and asks", "the manifest is "+state+"; what was approved is served")
	}
	// Nothing is known where this user may not look.
	if _, err := os.Lstat(p.SocketPath); errors.Is(err, fs.ErrNotExist) {
		wrong(problemSocketMissing, again+"; restart its containers", p.SocketPath+" was removed under the broker")
	}
	if missing := missingLinks(p); missing > 0 {
		wrong(problemLinkMissing, again, fmt.Sprintf("%d of the links that the Dev Container Feature mounts are not there: a devcontainer.json is newer than the registration", missing))
	}
	if len(findings) == 0 {
		findings = []cli.Finding{{Check: check, Detail: cli.Count(p.AllowlistSize, "secret") + " allowed, served at " + p.SocketPath}}
	}
	return findings
}

func runtimeDir(p schema.ProjectStatus) string {
	return filepath.Dir(filepath.Dir(filepath.Dir(p.SocketPath)))
}

// missingLinks counts the links that a registration would make now and that
// are not there.
func missingLinks(p schema.ProjectStatus) (missing int) {
	ids, err := devcontainerIDs(p.ProjectPath, p.ProjectPath)
	if err != nil {
		return 0
	}
	for _, id := range ids {
		target, err := os.Readlink(filepath.Join(runtimeDir(p), devcontainerDirectory, string(id)))
		if errors.Is(err, fs.ErrNotExist) || err == nil && filepath.Base(target) != string(p.Name) {
			missing++
		}
	}
	return missing
}

// examineRuntimeDir looks for what an engine made in the broker's place, where
// a container was started before its project was registered.
func examineRuntimeDir(dir string) (findings []cli.Finding) {
	found := func(path string) {
		findings = append(findings, cli.Finding{Check: "runtime directory", Problem: problemMadeByEngine,
			Detail: path + " was made by a container engine, before the project was registered",
			Fix:    "rmdir " + path + ", keyhatchctl register DIR, and make the container anew"})
	}
	for _, entry := range entries(dir, devcontainerDirectory) {
		if entry.IsDir() {
			found(filepath.Join(dir, devcontainerDirectory, entry.Name()))
		}
	}
	owner, ok := ownerOf(dir)
	for _, entry := range entries(dir, "projects") {
		path := filepath.Join(dir, "projects", entry.Name())
		if info, err := os.Lstat(filepath.Join(path, "broker.sock")); err == nil && info.IsDir() {
			found(filepath.Join(path, "broker.sock"))
		} else if of, known := ownerOf(path); ok && known && of != owner {
			found(path)
		}
	}
	return findings
}

// entries lists a directory; where this user may not look there is nothing.
func entries(dir, name string) []fs.DirEntry {
	all, _ := os.ReadDir(filepath.Join(dir, name))
	return all
}

func ownerOf(path string) (uint32, bool) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, false
	}
	return info.Sys().(*syscall.Stat_t).Uid, true
}
