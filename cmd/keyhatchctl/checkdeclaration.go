package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// A declarationCheck contains the parameters of checkDeclaration that are the same for each
// problem.
type declarationCheck struct {
	o       *globalOptions
	admin   *client.Admin
	process brokerProcess
	trees   *treeReader
}

// checkDeclaration returns the finding for one problem in the broker's status. A problem is a
// difference between the served projects and the projects that are declared or stored for a
// restart. If the operator can choose between the served project and the declared project, the
// fix contains one command for each choice.
func checkDeclaration(ctx context.Context, p schema.ProjectProblem, s schema.StatusResponse, c declarationCheck) cli.Finding {
	f := cli.Finding{Check: "project " + cli.Printable(p.Project), Problem: string(p.Problem), Detail: cli.Printable(p.Message)}
	file := filepath.Join(s.ProjectsDir, p.Project+".yaml")
	applyDeclarations := c.process.applyDeclarationsCommand()
	switch p.Problem {
	case schema.ProblemNotRestored:
		f.Fix = c.trees.notRestoredFix(p, c.o)
	case schema.ProblemNotApplied:
		if p.Project == "" {
			f.Check = "declared projects"
			file = s.ProjectsDir
		}
		isDuplicate, usedName := isDuplicateDeclaration(p), linkOfUsedName(p)
		ownerFix, err := ownerOrModeFix(p, s.ProjectsDir, file), checkDeclarationFile(file, p.Project)
		switch {
		case p.Project == "" && !strings.HasPrefix(p.Message, "cannot read the declared projects: "):
			f.Fix = "rename or remove the file in " + cli.ShellQuote(s.ProjectsDir) + ", and then apply the declarations: " + applyDeclarations
		case isDuplicate:
			f.Fix = "remove the file, because another file declares the same path and is in effect: " + sudoToChange(s.ProjectsDir) + cli.QuoteWords([]string{"rm", file})
		case usedName != "":
			f.Fix = "give the declaration another name: " + renameDeclarationCommand(file, usedName, s) + " && " + applyDeclarations +
				"\nor " + removeContainersOf(usedName) + ", and then serve the declaration: " + removeLinkCommand(usedName) + " && " + applyDeclarations
		case ownerFix != "":
			f.Fix = ownerFix + " && " + applyDeclarations
		case err == nil:
			f.Fix = "serve the declaration: " + applyDeclarations
		case errors.Is(err, fs.ErrPermission):
			f.Fix = "see the complete error: " + cli.SudoToActAs(0) + cli.QuoteWords([]string{"keyhatchd", "--check-config", "--projects-dir", s.ProjectsDir}) +
				"\ncorrect " + cli.ShellQuote(file) + ", and then serve the declaration: " + applyDeclarations
		default:
			if !strings.Contains(p.Message, err.Error()) {
				f.Detail += "\n" + cli.PrintableWord(file) + ": " + cli.Printable(err.Error())
			}
			f.Fix = "correct or remove " + cli.ShellQuote(file) + ", and then apply the declarations: " + applyDeclarations
		}
		if !isDuplicate && schema.ValidProjectName(p.Project) {
			f.Fix += "\nto end the project's access to secrets: " + unregisterShellCommand(c.o, schema.ProjectStatus{Name: schema.ProjectName(p.Project), Declared: true}, s)
		}
	case schema.ProblemNotDeclared:
		served, servedManifest, err := inspect(ctx, c.admin, schema.ProjectName(p.Project))
		if err != nil {
			f.Fix = "check again: " + c.o.command("doctor")
			break
		}
		f.Detail += differences(*served, servedManifest, file)
		f.Fix = "to serve the declaration: "
		if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
			f.Fix = "to unregister the project, which is no longer declared: "
		} else if link := filepath.Dir(served.SocketPath); served.ProjectPath != p.ProjectPath {
			// The served project has the name, and a link with this name in the runtime
			// directory. The broker cannot use the name for the declared path before the project
			// is unregistered and the link is removed. But as long as the directory of the served path exists, its containers
			// can mount the link, and would get the secrets of the declared project.
			if _, err := os.Lstat(served.ProjectPath); !errors.Is(err, fs.ErrNotExist) {
				f.Fix = "give the declaration another name, because the containers of " + cli.ShellQuote(served.ProjectPath) + " can mount " + cli.ShellQuote(link) + ": " +
					renameDeclarationCommand(file, link, s) + " && " + applyDeclarations
				break
			}
			f.Fix = removeContainersOf(link) + ", and then serve the declaration: " + c.o.command("unregister", p.Project) + " && " + removeLinkCommand(link) + " && "
		}
		f.Fix += applyDeclarations
		if p.ProjectPath == "" || served.ProjectPath == p.ProjectPath {
			f.Fix += "\nto declare the project as it is served: " + c.o.sudoCommand(sudoToChange(s.ProjectsDir), "declare", p.Project)
		}
	}
	return f
}

// isDuplicateDeclaration reports whether the broker does not serve a declaration because another
// file declares the same path and is in effect. The message of the broker can contain a path, and
// a path can contain any text. So isDuplicateDeclaration also checks the position of the words in
// the message.
func isDuplicateDeclaration(p schema.ProjectProblem) bool {
	cause, isNotServed := strings.CutPrefix(p.Message, "the declared project is not served: ")
	name, rest, _ := strings.Cut(cause, ".yaml ")
	return isNotServed && schema.ValidProjectName(name) && strings.HasPrefix(rest, "declares the same path and is in effect: ")
}

// linkOfUsedName returns the path of the link with the name of a declaration, if the broker does not
// serve the declaration because the link leads to the directory of another project. Otherwise, the
// result is "". As in isDuplicateDeclaration, the text of a path cannot change the result.
func linkOfUsedName(p schema.ProjectProblem) string {
	rest, isUsed := strings.CutPrefix(p.Message, "the declared project is not served: the name "+p.Project+" was used for another project: choose another name, or remove the link ")
	link, hasLink := strings.CutSuffix(rest, " if no container mounts the link")
	if !isUsed || !hasLink || !schema.ValidProjectName(p.Project) {
		return ""
	}
	return link
}

// renameDeclarationCommand returns the command that gives a declaration a name that no project, no
// declaration, and no link has. link is the path of the link with the current name.
func renameDeclarationCommand(file, link string, s schema.StatusResponse) string {
	exists := func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	}
	newFile := file
	for n := 2; exists(newFile) && n < 100; n++ {
		name := numberedName(schema.ProjectName(filepath.Base(link)), n)
		isServed := slices.ContainsFunc(s.Projects, func(other schema.ProjectStatus) bool { return other.Name == name })
		if candidate := filepath.Join(s.ProjectsDir, string(name)+".yaml"); !isServed && !exists(candidate) && !exists(filepath.Join(filepath.Dir(link), string(name))) {
			newFile = candidate
		}
	}
	return sudoToChange(s.ProjectsDir) + cli.QuoteWords([]string{"mv", "-n", file, newFile})
}

// ownerOrModeFix returns the command that corrects the owner or the mode of a declaration or of
// the directory of the declarations. If the problem has another cause, the result is "".
func ownerOrModeFix(p schema.ProjectProblem, projectsDir, file string) string {
	cause, isFile := strings.CutPrefix(p.Message, p.Project+".yaml is not a valid declaration: ")
	if !isFile {
		cause = strings.TrimPrefix(p.Message, "cannot read the declared projects: "+projectsDir+": ")
	}
	owner, _ := cli.VisibleOwner(file)
	switch {
	case strings.HasPrefix(cause, "must not be writable by other users"):
		return cli.SudoToActAs(owner) + cli.QuoteWords([]string{"chmod", "go-w", file})
	case strings.HasPrefix(cause, "must belong to root"):
		return cli.SudoToActAs(0) + cli.QuoteWords([]string{"chown", "root", file})
	}
	return ""
}

// notRestoredFix describes how to serve a project that the broker could not restore, and how to
// remove its stored registration. If the manifest of the project is invalid, the fix begins with
// the correction of the manifest. If notRestoredFix does not find the manifest, the fix does not
// suggest a registration, because a registration would fail.
func notRestoredFix(p schema.ProjectProblem, o *globalOptions) string {
	forget := forgetFix(p, o)
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

// checkDeclarationFile returns an error if the file of a declaration cannot be read, or if
// the declaration or its manifest is not valid.
func checkDeclarationFile(file, name string) error {
	text, err := manifest.ReadDeclarationText(file)
	if err != nil {
		return err
	}
	d, err := manifest.ParseDeclaration(text, name)
	if err == nil {
		_, err = manifest.Parse([]byte(d.Manifest))
	}
	return err
}

// differences lists the differences between a served project and its declaration in file. It
// begins each line with a line break. The result is "" if there is no difference, if this user
// cannot read the declaration, or if the declaration is not valid.
func differences(served schema.InspectResponse, servedManifest *manifest.Manifest, file string) string {
	text, err := manifest.ReadDeclarationText(file)
	if err != nil {
		return ""
	}
	declared, err := manifest.ParseDeclaration(text, string(served.Name))
	if err != nil {
		return ""
	}
	var changes []manifest.Change
	if served.ProjectPath != declared.Path {
		changes = append(changes, manifest.Change{Subject: "path", Old: cli.PrintableWord(served.ProjectPath), New: cli.PrintableWord(declared.Path)})
	}
	if !slices.Equal(served.AllowUIDs, declared.AllowUIDs) {
		changes = append(changes, manifest.Change{Subject: "allowed uids", Old: formatUIDs(served.AllowUIDs), New: formatUIDs(declared.AllowUIDs)})
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
			lines.WriteString("\n" + change.Subject + ", " + state.name + ": " + state.text)
		}
	}
	return lines.String()
}
