package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// declarationMode is the mode of a declaration file. It lets the broker's group read the file. In
// an installation from a package, the directory has the set-group-ID bit, so the file belongs to
// the broker's group.
const declarationMode = 0o640

// declarationPath returns the path of the project's declaration in the broker's projects
// directory. It returns an error if the broker has no projects directory.
func declarationPath(status schema.StatusResponse, name schema.ProjectName) (string, error) {
	if status.ProjectsDir == "" {
		return "", &cli.Error{Err: errors.New("this broker has no directory for declared projects"), Hint: "stop the broker, and start it again with --projects-dir DIR"}
	}
	return filepath.Join(status.ProjectsDir, string(name)+".yaml"), nil
}

// declareAndRegister writes a project's declaration and then registers the project. If this user
// has no permission to write the declaration, declareAndRegister does not register the project.
// After an error, for example if the broker refuses the project, declareAndRegister restores the
// old files.
//
// oldName is the name in the project's current declaration. If the name changes,
// declareAndRegister renames the file. So the project never has two declarations, even if
// keyhatchctl is killed. If keepsOther is true, declareAndRegister replaces only the manifest in
// the declaration.
func declareAndRegister(ctx context.Context, admin *client.Admin, request schema.RegisterRequest, oldName schema.ProjectName, keepsOther bool) (response schema.RegisterResponse, err error) {
	status, err := admin.Status(ctx)
	if err != nil {
		return response, err
	}
	file, err := declarationPath(status, request.Name)
	if err != nil {
		return response, err
	}
	oldFile := filepath.Join(filepath.Dir(file), string(oldName)+".yaml")
	var saved []savedFile
	for _, path := range []string{oldFile, file} {
		text, err := manifest.ReadDeclarationText(path)
		if err != nil && (keepsOther || !errors.Is(err, fs.ErrNotExist)) {
			return response, newDeclarationError("read", path, err)
		}
		saved = append(saved, savedFile{path, text, err == nil})
	}
	d := manifest.Declaration{Name: request.Name, Path: request.ProjectPath, AllowUIDs: request.AllowUIDs, DevcontainerIDs: request.DevcontainerIDs}
	if keepsOther {
		if d, err = readDeclaration(oldFile, oldName); err != nil {
			return response, err
		}
	}
	d.Manifest = *request.Manifest
	if oldFile != file && saved[0].existed {
		err = newDeclarationError("rename", file, os.Rename(oldFile, file))
	}
	if err == nil {
		err = writeDeclaration(file, d)
	}
	if err == nil {
		request.Declared = true
		response, err = admin.Register(ctx, request)
	}
	if err != nil {
		err = errors.Join(err, saved[0].restore(), saved[1].restore())
	}
	return response, err
}

// A savedFile is the content that a declaration file had before a change.
type savedFile struct {
	path    string
	text    []byte
	existed bool // false if there was no such file
}

// restore writes the saved content to the file again. If the file did not exist before the
// change, restore removes the file. If the file has not changed, restore does nothing.
func (s savedFile) restore() error {
	text, err := manifest.ReadDeclarationText(s.path)
	switch {
	case (err == nil) == s.existed && bytes.Equal(text, s.text):
		return nil
	case s.existed:
		return replaceFile(s.path, s.text, declarationMode)
	}
	return os.Remove(s.path)
}

// readDeclaration reads and parses the declaration of the project name in file. If the file does
// not exist, the error is a *declarationError that wraps fs.ErrNotExist.
func readDeclaration(file string, name schema.ProjectName) (manifest.Declaration, error) {
	text, err := manifest.ReadDeclarationText(file)
	if err != nil {
		return manifest.Declaration{}, newDeclarationError("read", file, err)
	}
	d, err := manifest.ParseDeclaration(text, string(name))
	if err != nil {
		return d, &cli.Error{Err: fmt.Errorf("cannot read the declaration: %s: %w", file, err), Hint: "correct the declaration and try again; keyhatchctl did not change anything"}
	}
	return d, nil
}

// A declaredPathError means that keyhatchctl cannot use a name for a project, because the
// declaration with this name declares the path of another project.
type declaredPathError struct {
	action   string // for example "declare"
	name     schema.ProjectName
	path     string
	file     string
	declared string // the path of the project that file declares
}

func (e *declaredPathError) Error() string {
	return fmt.Sprintf("cannot %s project %s in %s: %s already declares %s", e.action, e.name, cli.PrintableWord(e.path), cli.PrintableWord(e.file), cli.PrintableWord(e.declared))
}

// checkDeclaredPath returns a declaredPathError if the declaration of the project name declares
// another path than the request. checkDeclaredPath reads the declaration file, because the broker
// may be unable to serve the project that the file declares.
func checkDeclaredPath(status schema.StatusResponse, name schema.ProjectName, request schema.RegisterRequest) error {
	file, err := declarationPath(status, name)
	if err != nil {
		return err
	}
	d, err := readDeclaration(file, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && d.Path != request.ProjectPath:
		return &declaredPathError{"declare", request.Name, request.ProjectPath, file, d.Path}
	}
	return err
}

func isOtherPath(err error) bool {
	_, ok := errors.AsType[*declaredPathError](err)
	return ok
}

// checkUndeclaredName returns an error if a project without a declaration has the name of a
// declaration that declares another path or is not valid. Even if the broker cannot serve the
// declaration now, it could serve the declaration later. If this user cannot read the
// declaration, checkUndeclaredName returns nil.
func checkUndeclaredName(status schema.StatusResponse, request schema.RegisterRequest) error {
	if status.ProjectsDir == "" {
		return nil
	}
	err := checkDeclaredPath(status, request.Name, request)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if e, ok := errors.AsType[*declaredPathError](err); ok {
		e.action = "register"
	}
	return err
}

// keptDeclaration returns a line for the output of unregister if a file with the project's name
// exists in the projects directory, and unregister must keep the file: if the file declares
// another path, or if it is not a valid declaration and the project is served without it.
// Otherwise, keptDeclaration returns "".
func keptDeclaration(status schema.StatusResponse, p schema.ProjectStatus) (string, error) {
	file, err := declarationPath(status, p.Name)
	if err != nil {
		return "", err
	}
	d, err := readDeclaration(file, p.Name)
	switch {
	case p.ProjectPath == "", errors.Is(err, fs.ErrNotExist), err == nil && d.Path == p.ProjectPath, err != nil && p.Declared:
		return "", nil
	case err == nil:
		return fmt.Sprintf("\ndid not remove %s, which declares %s", cli.PrintableWord(file), cli.PrintableWord(d.Path)), nil
	}
	return fmt.Sprintf("\ndid not remove %s, which is not a valid declaration", cli.PrintableWord(file)), nil
}

// removeDeclaration removes the declaration of a project. If the declaration does not exist,
// removeDeclaration returns nil.
func removeDeclaration(status schema.StatusResponse, name schema.ProjectName) error {
	file, err := declarationPath(status, name)
	if err != nil {
		return err
	}
	err = os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(filepath.Dir(file))
	}
	return newDeclarationError("remove", file, err)
}

func writeDeclaration(file string, d manifest.Declaration) error {
	text, err := d.Encode()
	if err != nil {
		return err
	}
	return newDeclarationError("write", file, replaceFile(file, text, declarationMode))
}

// A declarationError is an error that occurred when keyhatchctl read or changed a file in the
// broker's projects directory.
type declarationError struct {
	action string // for example "write"
	dir    string // the broker's projects directory
	err    error
}

func (e *declarationError) Error() string {
	return "cannot " + e.action + " the declaration: " + e.err.Error()
}
func (e *declarationError) Unwrap() error { return e.err }

// newDeclarationError returns a *declarationError for err, or nil if err is nil.
func newDeclarationError(action, file string, err error) error {
	if err == nil {
		return nil
	}
	return &declarationError{action, filepath.Dir(file), err}
}

// hint returns the hint for a user who has no permission to change the projects directory. It
// names the user who has this permission, usually root, and contains the command to run as this
// user.
func (e *declarationError) hint(socket string) string {
	owner, _ := cli.VisibleOwner(e.dir)
	user := "root"
	if owner != 0 {
		user = fmt.Sprintf("uid %d", owner)
	}
	return fmt.Sprintf("only %s can change the declared projects in %s: %s", user, cli.PrintableWord(e.dir), cli.RerunAs(owner, socket))
}
