package main

import (
	"errors"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// A treeReader reads the directories that containers can change: the directories of projects, and
// the directories of their sockets. A container can block such a directory, so that a process
// that uses the directory hangs and cannot be killed. Therefore a treeReader uses the directories
// only in child processes, and replaces a child process that hangs. So a container that blocks
// its directories cannot prevent the operator from seeing the other projects.
type treeReader struct {
	setup treeSetup
	child *treeChild // nil if no child process is running
}

func newTreeReader(o *globalOptions, status schema.StatusResponse) *treeReader {
	return &treeReader{setup: treeSetup{status, o.socket, o.tokenFile}}
}

func (r *treeReader) close() {
	if r.child != nil {
		r.child.end()
	}
}

// run runs a task in a child process. If the child process does not answer, run kills it and
// returns an error. The next call starts another child process.
func (r *treeReader) run(task treeTask) (result treeResult, err error) {
	if r.child == nil {
		if r.child, err = startTreeChild(r.setup); err != nil {
			return result, err
		}
	}
	if result, err = r.child.exchange(task, treeTimeout); err != nil {
		r.child.kill()
		r.child = nil
	}
	return result, err
}

// manifestState describes the manifest in a project's directory, for one column of a table.
func (r *treeReader) manifestState(p schema.ProjectStatus) string {
	result, err := r.run(treeTask{Kind: taskManifestState, Project: p})
	switch {
	case errors.Is(err, errTreeBlocked):
		return "does not answer"
	case err != nil:
		return "unreadable"
	}
	return result.Text
}

// checkProject runs the function checkProject in a child process. If the child process does not
// answer, the finding is that the project's directories are blocked.
func (r *treeReader) checkProject(p schema.ProjectStatus, missing []schema.SecretName, o *globalOptions) []cli.Finding {
	result, err := r.run(treeTask{Kind: taskCheckProject, Project: p, Missing: missing})
	if err != nil {
		return []cli.Finding{{Check: "project " + string(p.Name), Problem: problemDirectoryBlocked,
			Detail: "cannot check " + cli.PrintableWord(p.ProjectPath) + " and the directory of its socket: " + err.Error(),
			Fix:    "stop the containers of the project, and check again: " + o.command("doctor") + "\nto end the project's access to secrets: " + unregisterShellCommand(o, p, r.setup.Status)}}
	}
	return result.Findings
}

// notRestoredFix runs the function notRestoredFix in a child process. If the child process does
// not answer, the fix only removes the stored registration.
func (r *treeReader) notRestoredFix(p schema.ProjectProblem, o *globalOptions) string {
	result, err := r.run(treeTask{Kind: taskNotRestoredFix, Problem: p})
	if err != nil {
		return forgetFix(p, o)
	}
	return result.Text
}

// readManifest runs manifest.Read in a child process.
func (r *treeReader) readManifest(dir string) (manifest.File, error) {
	result, err := r.run(treeTask{Kind: taskReadManifest, Path: dir})
	switch {
	case err != nil:
	case result.NotFound:
		err = manifest.ErrNotFound
	case result.Err != "":
		err = errors.New(result.Err)
	}
	return result.File, err
}

// checkSocketDir runs the function checkSocketDir in a child process. If the child process does
// not answer, the finding is that the directory is blocked.
func (r *treeReader) checkSocketDir(path string, o *globalOptions) []cli.Finding {
	result, err := r.run(treeTask{Kind: taskCheckSocketDir, Path: path})
	if err != nil {
		return []cli.Finding{{Check: "runtime directory", Problem: problemDirectoryBlocked, Detail: cli.PrintableWord(path) + " cannot be checked: " + err.Error(),
			Fix: "stop the container that mounts the directory, and check again: " + o.command("doctor")}}
	}
	return result.Findings
}

// explainManifest returns the finding for a secret that the approved manifest of a project does
// not allow, and the finding for the manifest in the project's directory.
func (r *treeReader) explainManifest(p schema.ProjectStatus, secret schema.SecretName, o *globalOptions) (denied, manifest cli.Finding) {
	result, err := r.run(treeTask{Kind: taskExplainManifest, Project: p, Secret: secret})
	if err != nil {
		blocked := cli.Finding{Problem: problemDirectoryBlocked, Detail: "cannot read the manifest in " + cli.PrintableWord(p.ProjectPath) + ": " + err.Error(),
			Fix: "stop the containers of the project, and check again: " + o.command("explain", string(p.Name), string(secret))}
		return deniedFinding(secret, blocked.Fix), blocked
	}
	return result.Findings[0], result.Findings[1]
}

// forgetFix describes how to remove the stored registration of a project that the broker could
// not restore.
func forgetFix(p schema.ProjectProblem, o *globalOptions) string {
	return "to forget the project: " + o.command("unregister", p.Project)
}
