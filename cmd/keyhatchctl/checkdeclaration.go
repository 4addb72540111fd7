package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// A declarationCheck explains differences between the served projects and those that are
// declared or stored for a restart.
type declarationCheck struct {
	o       *globalOptions
	admin   *client.Admin
	process brokerProcess
}

// checkDeclaration returns the finding for one difference. Its fix contains one command for
// each state that can win.
func checkDeclaration(ctx context.Context, p schema.ProjectProblem, s schema.StatusResponse, c declarationCheck) cli.Finding {
	f := cli.Finding{Check: "project " + cli.Printable(p.Project), Problem: string(p.Problem), Detail: cli.Printable(p.Message)}
	file := filepath.Join(s.ProjectsDir, p.Project+".yaml")
	applyDeclarations := c.process.applyDeclarationsCommand()
	switch p.Problem {
	case schema.ProblemNotRestored:
		f.Fix = notRestoredFix(p, c.o)
	case schema.ProblemNotApplied:
		if p.Project == "" {
			f.Check = "declared projects"
			f.Fix = "correct the owner and the mode of " + cli.ShellQuote(s.ProjectsDir) + ", and then serve the declarations: " + applyDeclarations
			break
		}
		err := checkDeclarationFile(file, p.Project)
		switch {
		case err == nil:
			f.Fix = "serve the declaration: " + applyDeclarations
		case errors.Is(err, fs.ErrPermission):
			f.Fix = "see the complete error: " + sudoToActAs(0) + quoteWords([]string{"keyhatchd", "--check-config", "--projects-dir", s.ProjectsDir}) +
				"\ncorrect " + cli.ShellQuote(file) + ", and then serve the declaration: " + applyDeclarations
		default:
			f.Detail += "\n" + cli.Printable(file) + ": " + cli.Printable(err.Error())
			f.Fix = "correct " + cli.ShellQuote(file) + ", and then serve the declaration: " + applyDeclarations
		}
	case schema.ProblemNotDeclared:
		f.Detail += c.differences(ctx, p.Project, file)
		f.Fix = "to serve the declaration: " + applyDeclarations +
			"\nto declare the project as it is served: " + sudoToWrite(s.ProjectsDir) + c.o.command("declare", p.Project)
	}
	return f
}

// notRestoredFix describes how to serve a project that the broker could not restore, or how
// to forget the project. It suggests a registration only if a registration can succeed.
func notRestoredFix(p schema.ProjectProblem, o *globalOptions) string {
	forget := "to forget the project: " + o.command("unregister", p.Project)
	file, err := manifest.Read(p.ProjectPath)
	if err == nil {
		_, err = manifest.Parse(file.Text)
	}
	register := o.command("register", p.ProjectPath)
	switch {
	case err == nil:
		return "to serve the project with its current manifest: " + register + "\n" + forget
	case file.Path != "":
		return "correct " + cli.ShellQuote(filepath.Join(p.ProjectPath, file.Path)) + " (" + cli.Printable(err.Error()) + "), and then serve the project: " + register + "\n" + forget
	}
	return forget
}

// checkDeclarationFile returns the error of a declaration's file or of the manifest in it.
func checkDeclarationFile(file, name string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	d, err := manifest.ParseDeclaration(text, name)
	if err == nil {
		_, err = manifest.Parse([]byte(d.Manifest))
	}
	return err
}

// differences lists the differences between a served project and its declaration, each in a
// line that begins with a line break. If this user cannot read the declaration, the result
// is "".
func (c declarationCheck) differences(ctx context.Context, name, file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	declared, err := manifest.ParseDeclaration(text, name)
	if err != nil {
		return ""
	}
	served, servedManifest, err := inspect(ctx, c.admin, schema.ProjectName(name))
	if err != nil {
		return ""
	}
	changes := registrationChanges(*served, served.AllowUIDs, schema.RegisterRequest{Name: served.Name, AllowUIDs: declared.AllowUIDs, DevcontainerIDs: declared.DevcontainerIDs})
	if served.ProjectPath != declared.Path {
		changes = append(changes, manifest.Change{Subject: "path", Old: cli.Printable(served.ProjectPath), New: cli.Printable(declared.Path)})
	}
	if declaredManifest, err := manifest.Parse([]byte(declared.Manifest)); err == nil && servedManifest != nil {
		changes = append(changes, manifest.Changes(servedManifest, declaredManifest)...)
	}
	var lines strings.Builder
	for _, change := range changes {
		for _, state := range []struct{ name, text string }{{"served", change.Old}, {"declared", change.New}} {
			if state.text == "" {
				state.text = "none"
			}
			lines.WriteString("\n" + change.Subject + ", " + state.name + ": " + strings.ReplaceAll(state.text, "\n", "\n  "))
		}
	}
	return lines.String()
}
