package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// checkProject returns one finding for each problem of a project. If there is no problem, it
// returns one finding that describes the project. The parameter missing contains the secrets
// that the approved manifest allows but that the broker does not have.
func checkProject(p schema.ProjectStatus, missing []schema.SecretName, status schema.StatusResponse, o *globalOptions) (findings []cli.Finding) {
	check := "project " + string(p.Name)
	add := func(f cli.Finding) {
		if f.Problem != "" {
			f.Check = check
			findings = append(findings, f)
		}
	}
	pathProblem := checkProjectPath(p, status, o)
	add(pathProblem)
	m := readTreeManifest(p)
	if pathProblem.Problem == "" {
		add(checkOwner(p, status, o))
		add(checkManifest(p, m, status, o))
	}
	add(checkSecretsStored(p, missing, o))
	// Report a problem only if the socket certainly does not exist. If this user has no
	// permission to see the socket, Lstat fails although the socket may exist.
	if _, err := os.Lstat(p.SocketPath); errors.Is(err, fs.ErrNotExist) {
		add(cli.Finding{Problem: problemSocketMissing, Detail: p.SocketPath + " was removed while the broker was running; the broker creates the socket again within a minute",
			Fix: "wait a minute, and check again: " + o.command("doctor")})
	}
	if links := countMissingLinks(p); links > 0 && pathProblem.Problem == "" {
		add(cli.Finding{Problem: problemLinkMissing, Fix: registerAgainCommand(o, p, status),
			Detail: "a container with the Dev Container Feature cannot start, because the runtime directory lacks " + cli.Plural(links, "link") + " to the project's socket: a devcontainer.json was created after the registration, or the project's declaration does not contain the IDs of its dev containers"})
	}
	if len(findings) == 0 {
		detail := fmt.Sprintf("the manifest allows %s; allowed uids: %s; socket: %s", cli.Plural(p.AllowlistSize, "secret"), formatUIDs(p.AllowUIDs), p.SocketPath)
		if otherName := m.otherName(p); otherName != "" && !nameIsTaken(otherName, p, status) {
			detail += fmt.Sprintf("; the manifest has the name %s, but the broker serves the project as %s; to use the name of the manifest: %s",
				otherName, p.Name, renameCommand(o, otherName, p, status))
		}
		findings = []cli.Finding{{Check: check, Detail: detail}}
	}
	return findings
}

// checkProjectPath checks that the path of the project is still a directory and contains no
// symbolic link. keyhatchctl does not accept a path that contains a symbolic link now, because
// untrusted code could have created the link.
func checkProjectPath(p schema.ProjectStatus, status schema.StatusResponse, o *globalOptions) cli.Finding {
	path := cli.PrintableWord(p.ProjectPath)
	fix := "if the project is gone: " + unregisterShellCommand(o, p, status) +
		"\nif you moved the project to NEW_DIR, " + removeContainersOf(filepath.Dir(p.SocketPath)) + ", register the project again, and create its containers again: " + moveCommand(o, p, "NEW_DIR", registerOptions{}, status)
	resolved, err := filepath.EvalSymlinks(p.ProjectPath)
	info, statErr := os.Stat(p.ProjectPath)
	switch {
	case err == nil && resolved != p.ProjectPath:
		// Hostile code can replace a directory with a link to another project, so no command in
		// the fix contains the path to which the link leads.
		return cli.Finding{Problem: problemPathReplaced, Fix: "if the project did not move, replace the symbolic link with the directory\n" + fix,
			Detail: path + " contains a symbolic link now, and leads to " + cli.PrintableWord(resolved) + "; the project is still registered at " + path}
	case errors.Is(err, fs.ErrPermission):
		return cli.Finding{Problem: problemNoPermission, Detail: "cannot check " + path + ": permission denied", Fix: o.sudoCommand(cli.SudoToActAs(0), "doctor")}
	case err != nil || statErr != nil || !info.IsDir():
		reason := " does not exist"
		if statErr == nil && !info.IsDir() {
			reason = " is not a directory"
		}
		return cli.Finding{Problem: problemPathGone, Detail: path + reason + ", but the project is still registered", Fix: fix}
	}
	return cli.Finding{}
}

// checkManifest compares the manifest in the project's directory with the approved manifest. If
// the manifest is missing or invalid, a reload would fail. The fix then begins with the
// correction of the manifest.
func checkManifest(p schema.ProjectStatus, m treeManifest, status schema.StatusResponse, o *globalOptions) cli.Finding {
	reload := o.command("reload", string(p.Name))
	const inEffect = "; the approved manifest is still in effect"
	switch {
	case errors.Is(m.err, fs.ErrPermission):
		return cli.Finding{Problem: problemNoPermission, Detail: cli.PrintableWord(p.ProjectPath) + ": " + m.err.Error(), Fix: o.sudoCommand(cli.SudoToActAs(0), "doctor")}
	case m.approved:
	case m.isMissing():
		return cli.Finding{Problem: problemManifestChanged, Detail: "the manifest was removed" + inEffect,
			Fix: "restore the manifest, and check again: " + o.command("doctor") + "\nto end the project's access to secrets: " + unregisterShellCommand(o, p, status)}
	case m.parsed == nil:
		return cli.Finding{Problem: problemManifestInvalid, Detail: "the manifest has changed since it was approved, but it is invalid: " + cli.Printable(m.err.Error()) + inEffect,
			Fix: "correct " + cli.ShellQuote(filepath.Join(p.ProjectPath, m.file.Path)) + ", and then approve it: " + reload}
	default:
		detail := "the manifest has changed since it was approved" + inEffect
		fix := "to see the changes, and to approve them: " + reload
		if otherName := m.otherName(p); otherName != "" && !nameIsTaken(otherName, p, status) {
			detail += fmt.Sprintf("; the manifest has the name %s, but a reload does not change the name %s", otherName, p.Name)
			fix += fmt.Sprintf("\nto approve the changes, and to rename the project to %s: ", otherName) + renameCommand(o, otherName, p, status)
		}
		return cli.Finding{Problem: problemManifestChanged, Detail: detail, Fix: fix}
	}
	return cli.Finding{}
}

// checkOwner checks that the owner of the project's directory can use the socket. A registration
// allows only the owner that the directory has at that time, and the owner can change later.
// checkOwner ignores root, which is always allowed, and schema.UnmappedUID, which cannot be allowed.
func checkOwner(p schema.ProjectStatus, status schema.StatusResponse, o *globalOptions) cli.Finding {
	owner, _ := cli.VisibleOwner(p.ProjectPath)
	if owner == 0 || owner == schema.UnmappedUID || slices.Contains(p.AllowUIDs, owner) {
		return cli.Finding{}
	}
	return cli.Finding{Problem: problemOwnerNotAllowed, Fix: registerAgainCommand(o, p, status),
		Detail: fmt.Sprintf("%s belongs to uid %d, which is not allowed to use the socket", cli.PrintableWord(p.ProjectPath), owner)}
}

// checkSecretsStored reports the secrets that the approved manifest allows but that the broker
// does not have. The finding may contain their names, because every user of the admin socket
// can list the names of all secrets.
func checkSecretsStored(p schema.ProjectStatus, missing []schema.SecretName, o *globalOptions) cli.Finding {
	if len(missing) == 0 {
		return cli.Finding{}
	}
	var names []string
	for _, name := range missing {
		names = append(names, string(name))
	}
	return cli.Finding{Problem: problemSecretsMissing, Detail: "the manifest allows secrets that the broker does not have: " + strings.Join(names, ", "),
		Fix: "correct the names in the manifest, and approve it: " + o.command("reload", string(p.Name)) +
			"\nif the names are correct, store the secrets: " + cli.QuoteWords([]string{"keyhatch-sidecar", "set", names[0], "--store", "STORE"})}
}

// nameIsTaken reports whether another project has the name, so that the project p cannot get it.
// An unregistered project still has its name as long as the broker's link with this name leads to
// the directory of the unregistered project.
func nameIsTaken(name schema.ProjectName, p schema.ProjectStatus, status schema.StatusResponse) bool {
	if slices.ContainsFunc(status.Projects, func(other schema.ProjectStatus) bool { return other.Name == name }) {
		return true
	}
	current := filepath.Dir(p.SocketPath)
	directory, _ := os.Readlink(current)
	target, err := os.Readlink(filepath.Join(filepath.Dir(current), string(name)))
	return !errors.Is(err, fs.ErrNotExist) && target != directory
}

// renameCommand returns the command that registers a project with another name.
func renameCommand(o *globalOptions, name schema.ProjectName, p schema.ProjectStatus, status schema.StatusResponse) string {
	return o.registerCommand(p.ProjectPath, registerOptions{name: string(name), persist: p.Declared}, status)
}

// registerAgainCommand returns the command that updates the registration of a project.
func registerAgainCommand(o *globalOptions, p schema.ProjectStatus, status schema.StatusResponse) string {
	return o.registerCommand(p.ProjectPath, registerOptions{persist: p.Declared}, status)
}

// countMissingLinks counts the links for dev containers that a new registration would create or
// correct. If this user cannot read the link with the project's name, the result is 0.
func countMissingLinks(p schema.ProjectStatus) (missing int) {
	directory, err := os.Readlink(filepath.Dir(p.SocketPath))
	if err != nil {
		return 0
	}
	ids, _ := devcontainerIDs(p.ProjectPath)
	for _, id := range ids {
		target, err := os.Readlink(filepath.Join(runtimeDirFromSocket(p), devcontainersDir, string(id)))
		if errors.Is(err, fs.ErrNotExist) || err == nil && filepath.Base(target) != directory {
			missing++
		}
	}
	return missing
}

func runtimeDirFromSocket(p schema.ProjectStatus) string {
	return filepath.Dir(filepath.Dir(filepath.Dir(p.SocketPath)))
}
