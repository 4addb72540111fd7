package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func doctorCommand(o *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Diagnose problems with the broker and its projects",
		Long: `doctor checks the broker, the secrets in the broker's memory, and every registered
project. For each project, doctor checks the directory, the manifest, the socket,
and the links that the Dev Container Feature mounts. For each problem, doctor prints
how to fix the problem, usually with the command to run. If a problem has several
solutions, doctor prints each solution on its own line. doctor does not change
anything.

The exit code of doctor is 0 if doctor finds no problem, and 1 if doctor finds a
problem. To check a container, run keyhatch doctor in the container.`,
		Example: `  keyhatchctl doctor
  keyhatchctl --json doctor | jq -r '.findings[] | select(.problem).fix'`,
		RunE: func(c *cobra.Command, _ []string) error {
			return cli.PrintFindings(c.OutOrStdout(), checkAll(c.Context(), o), o.asJSON)
		},
	}
}

// checkAll checks the broker, every registered project, and the runtime directory. If the broker
// does not answer, checkAll returns only one finding, which describes this problem.
func checkAll(ctx context.Context, o *globalOptions) (findings []cli.Finding) {
	err := o.withAdmin(ctx, func(admin *client.Admin) error {
		status, err := admin.Status(ctx)
		if err != nil {
			return err
		}
		trees := newTreeReader(o, status)
		defer trees.close()
		process := findBrokerProcess(admin)
		findings = []cli.Finding{checkVersion(status, process), checkMemory(status, process), checkSecretsLoaded(status, o)}
		if status.SidecarMissing && !isSidecarConnected(status) {
			findings = append(findings, missingSidecar(o))
		}
		if status.RefusedSidecars > 0 {
			findings = append(findings, checkSidecars(status))
		}
		if status.StoreProblems > 0 {
			findings = append(findings, checkStores(status, o))
		}
		for _, p := range status.Problems {
			findings = append(findings, checkDeclaration(ctx, p, status, declarationCheck{o, admin, process, trees}))
		}
		for _, p := range status.Projects {
			findings = append(findings, trees.checkProject(p, missingSecrets(ctx, admin, p.Name, status), o)...)
		}
		if len(status.Projects) == 0 {
			findings = append(findings, cli.Finding{Check: "projects", Detail: "no project is registered; to register one: " + o.command("register", "DIR")})
		}
		if runtimeDir, ok := strings.CutSuffix(o.adminSocket(), cli.AdminSocketSuffix); ok {
			findings = append(findings, checkRuntimeDir(runtimeDir, status, trees, o)...)
		}
		return nil
	})
	if err != nil {
		return []cli.Finding{connectionProblem(err)}
	}
	return findings
}

// connectionProblem returns the finding for an error of the connection to the broker, or
// of the status request.
func connectionProblem(err error) cli.Finding {
	f := cli.Finding{Check: "broker", Problem: problemRefused, Detail: err.Error()}
	if failure, ok := errors.AsType[*cli.Error](err); ok {
		f.Fix = failure.Hint
	}
	switch {
	case errors.Is(err, errProtocolSkew), errors.Is(err, client.ErrProtocol):
		f.Problem = problemProtocolSkew
	case errors.Is(err, client.ErrUnreachable) && errors.Is(err, fs.ErrPermission):
		f.Problem = problemNoPermission
	case errors.Is(err, client.ErrUnreachable), errors.Is(err, cli.ErrNoSocket):
		f.Problem = problemBrokerDown
	}
	return f
}

func checkVersion(s schema.StatusResponse, process brokerProcess) cli.Finding {
	if s.BrokerVersion == cli.Version {
		return cli.Finding{Check: "broker", Detail: fmt.Sprintf("version %s, protocol %d", s.BrokerVersion, s.ProtocolVersion)}
	}
	return cli.Finding{Check: "broker", Problem: problemVersionSkew,
		Detail: fmt.Sprintf("the broker has version %s, but this keyhatchctl has version %s; both use protocol %d", s.BrokerVersion, cli.Version, s.ProtocolVersion),
		Fix:    "install keyhatchd and keyhatchctl from the same release\nthen " + process.restartFix()}
}

func checkMemory(s schema.StatusResponse, process brokerProcess) cli.Finding {
	if s.Memory != schema.MemoryUnlocked {
		return cli.Finding{Check: "memory", Detail: string(s.Memory)}
	}
	return cli.Finding{Check: "memory", Problem: problemMemoryUnlocked, Detail: "the secrets are not in locked memory and could be written to swap", Fix: process.memoryFix()}
}

func checkSecretsLoaded(s schema.StatusResponse, o *globalOptions) cli.Finding {
	if s.SecretsLoadedAt == nil {
		cause, fix := o.noSecretsText(s)
		return cli.Finding{Check: "secrets", Problem: problemNothingLoaded, Detail: "the broker has no secrets: " + cause, Fix: fix}
	}
	detail := cli.Plural(s.SecretCount, "secret") + " loaded"
	if !isSidecarConnected(s) && !s.SidecarMissing {
		detail += "; no sidecar is connected, so a change in a store has no effect until the sidecar runs again"
	}
	return cli.Finding{Check: "secrets", Detail: detail}
}

// missingSidecar returns the finding for a sidecar that has pushed and is no longer connected.
// checkAll does not call missingSidecar if the secrets come from keyhatchctl push, because no
// sidecar is necessary then.
func missingSidecar(o *globalOptions) cli.Finding {
	return cli.Finding{Check: "sidecar", Problem: problemSidecarMissing,
		Detail: "no sidecar is connected: changes and removals in the store do not reach the broker",
		Fix:    "start the sidecar: " + o.sidecarCommand("run")}
}

// checkSidecars returns the finding for sidecars that the broker refuses.
func checkSidecars(s schema.StatusResponse) cli.Finding {
	accepted := "another sidecar"
	if s.SidecarPID != 0 {
		accepted += fmt.Sprintf(" (pid %d)", s.SidecarPID)
	}
	return cli.Finding{Check: "sidecar", Problem: problemSidecarRefused,
		Detail: fmt.Sprintf("the broker has refused the secrets of %s, because %s was connected and had already pushed", cli.Plural(s.RefusedSidecars, "sidecar"), accepted),
		Fix:    "stop all sidecars of this broker except one"}
}

// checkStores returns the finding for the problems that sidecars have with their stores.
func checkStores(s schema.StatusResponse, o *globalOptions) cli.Finding {
	return cli.Finding{Check: "sidecar", Problem: problemStore,
		Detail: "the sidecar has " + cli.Plural(s.StoreProblems, "problem") + " with its store, so the broker may have old values",
		Fix:    "read the sidecar's log, or check the sidecar's store: " + o.sidecarCommand("health")}
}

// missingSecrets returns the secrets that the approved manifest of a project allows but that the
// broker does not have. If the broker has no secrets at all, the result is empty, because doctor
// reports this as another problem. If the broker does not answer, the result is also empty.
func missingSecrets(ctx context.Context, admin *client.Admin, name schema.ProjectName, status schema.StatusResponse) (missing []schema.SecretName) {
	if status.SecretsLoadedAt == nil {
		return nil
	}
	_, approved, err := inspect(ctx, admin, name)
	if err != nil || approved == nil {
		return nil
	}
	stored, err := admin.List(ctx)
	if err != nil {
		return nil
	}
	for _, secret := range approved.Allowlist() {
		if !slices.Contains(stored, secret) {
			missing = append(missing, secret)
		}
	}
	return missing
}

// checkRuntimeDir finds directories that a container engine or a container created in the runtime
// directory, and links of projects that are not registered. If a container starts before its
// project is registered, the engine creates the directory that the container mounts. When a
// project is unregistered, the broker does not remove the project's link, because a container may
// still mount the directory to which the link leads.
func checkRuntimeDir(dir string, status schema.StatusResponse, trees *treeReader, o *globalOptions) (findings []cli.Finding) {
	var unregistered []string
	for _, entry := range listDir(dir, devcontainersDir) {
		if entry.IsDir() {
			findings = append(findings, madeByEngine(o, filepath.Join(dir, devcontainersDir, entry.Name())))
		}
	}
	for _, entry := range listDir(dir, "projects") {
		switch {
		case entry.IsDir():
			findings = append(findings, trees.checkSocketDir(filepath.Join(dir, "projects", entry.Name()), o)...)
		case !isKnownProject(entry.Name(), status): // every link in this directory was created by the broker
			unregistered = append(unregistered, cli.PrintableWord(entry.Name()))
		}
	}
	if len(unregistered) > 0 {
		findings = append(findings, cli.Finding{Check: "runtime directory", Detail: "the links of these projects remain, but the projects are not registered: " +
			strings.Join(unregistered, ", ") + "; if a container still mounts one of these links, register the directory of the project again: " + o.command("register", "DIR")})
	}
	return findings
}

// madeByEngine returns the finding for the directory paths[0], which a container engine created.
// If the engine also created the parent directory of paths[0], paths[1] is the parent directory.
// The fix removes all paths.
func madeByEngine(o *globalOptions, paths ...string) cli.Finding {
	remove := sudoToChange(filepath.Dir(paths[0])) + cli.QuoteWords(append([]string{"rmdir"}, paths...))
	return cli.Finding{Check: "runtime directory", Problem: problemMadeByEngine,
		Detail: cli.PrintableWord(paths[0]) + " was created by a container engine, because a container started before its project was registered",
		Fix:    "register the project, and then create the container again: " + remove + " && " + o.command("register", "DIR")}
}

// checkSocketDir checks a directory in the directory projects of the runtime directory. The
// broker creates directories for sockets there, and their names begin with a dot. A container
// engine can have created a directory with another name.
func checkSocketDir(path string, o *globalOptions) []cli.Finding {
	socket := filepath.Join(path, "broker.sock")
	info, err := os.Lstat(socket)
	isDir := err == nil && info.IsDir()
	switch belongsToBroker := strings.HasPrefix(filepath.Base(path), "."); {
	case isDir && len(readEntries(socket, 1)) > 0:
		return []cli.Finding{{Check: "runtime directory", Problem: problemSocketReplaced,
			Detail: cli.PrintableWord(socket) + " is a directory that is not empty, so the broker cannot create the socket; the container of the project has created this directory",
			Fix:    "remove the directory, and check again after a minute: " + cli.SudoToActAs(0) + cli.QuoteWords([]string{"rm", "-r", socket})}}
	case belongsToBroker && isDir:
		return []cli.Finding{madeByEngine(o, socket)}
	case !belongsToBroker && isDir:
		return []cli.Finding{madeByEngine(o, socket, path)}
	case !belongsToBroker:
		return []cli.Finding{madeByEngine(o, path)}
	}
	return nil
}

// isKnownProject reports whether a served project or a problem in the broker's status has the
// given name.
func isKnownProject(name string, status schema.StatusResponse) bool {
	return slices.ContainsFunc(status.Projects, func(p schema.ProjectStatus) bool { return string(p.Name) == name }) ||
		slices.ContainsFunc(status.Problems, func(p schema.ProjectProblem) bool { return p.Project == name })
}

// listDir lists the directory name in dir. If this user cannot read that directory, the
// list is empty.
func listDir(dir, name string) []fs.DirEntry {
	entries, _ := os.ReadDir(filepath.Join(dir, name))
	return entries
}
