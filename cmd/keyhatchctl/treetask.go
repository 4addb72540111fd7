package main

import (
	"errors"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
)

// runTreeTask runs a task. Only child processes call runTreeTask, because a task hangs if a
// container blocks a directory.
func runTreeTask(t treeTask, setup treeSetup) (result treeResult) {
	o := &globalOptions{socket: setup.Socket, tokenFile: setup.TokenFile}
	switch t.Kind {
	case taskManifestState:
		result.Text = readTreeManifest(t.Project).state(t.Project)
	case taskCheckProject:
		result.Findings = checkProject(t.Project, t.Missing, setup.Status, o)
	case taskNotRestoredFix:
		result.Text = notRestoredFix(t.Problem, o)
	case taskReadManifest:
		file, err := manifest.Read(t.Path)
		result.File, result.NotFound = file, errors.Is(err, manifest.ErrNotFound)
		if err != nil {
			result.Err = err.Error()
		}
	case taskCheckSocketDir:
		result.Findings = checkSocketDir(t.Path, o)
	case taskExplainManifest:
		m := readTreeManifest(t.Project)
		result.Findings = []cli.Finding{explainDenied(t.Project, m, t.Secret, o), explainManifest(t.Project, m, setup.Status, o)}
	}
	return result
}
