package main

import (
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

// declarationMode is the mode of a declaration file. The broker's group can read the file.
// The directory has the set-group-ID bit, so the file gets the group of the directory.
const declarationMode = 0o640

// declarationPath returns the path of the project's declaration in the broker's
// projects directory.
func declarationPath(ctx context.Context, admin *client.Admin, name schema.ProjectName) (string, error) {
	status, err := admin.Status(ctx)
	if err != nil {
		return "", err
	}
	if status.ProjectsDir == "" {
		return "", &cli.Error{Err: errors.New("this broker has no directory for declared projects"), Hint: "stop the broker, and start it again with --projects-dir DIR"}
	}
	return filepath.Join(status.ProjectsDir, string(name)+".yaml"), nil
}

// declareAndRegister writes a project's declaration and then registers the project. It
// writes the declaration first, because the user may have no permission to write the file.
// If the broker refuses the project, declareAndRegister restores the old file.
func declareAndRegister(ctx context.Context, admin *client.Admin, request schema.RegisterRequest) (schema.RegisterResponse, error) {
	file, err := declarationPath(ctx, admin, request.Name)
	if err != nil {
		return schema.RegisterResponse{}, err
	}
	oldText, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return schema.RegisterResponse{}, addPermissionHint("read", err)
	}
	existed := err == nil
	if err := writeDeclaration(file, manifest.Declaration{
		Name: request.Name, Path: request.ProjectPath, AllowUIDs: request.AllowUIDs, DevcontainerIDs: request.DevcontainerIDs, Manifest: *request.Manifest,
	}); err != nil {
		return schema.RegisterResponse{}, err
	}
	request.Declared = true
	response, err := admin.Register(ctx, request)
	if err == nil {
		return response, nil
	}
	restoreErr := os.Remove(file)
	if existed {
		restoreErr = replaceFile(file, oldText, declarationMode)
	}
	return response, errors.Join(err, restoreErr)
}

// rewriteDeclarationFile replaces the manifest in a declared project's file.
func rewriteDeclarationFile(ctx context.Context, admin *client.Admin, name schema.ProjectName, text string) error {
	file, err := declarationPath(ctx, admin, name)
	if err != nil {
		return err
	}
	d, err := readDeclaration(file, name)
	if err != nil {
		return err
	}
	d.Manifest = text
	return writeDeclaration(file, d)
}

// readDeclaration reads a project's declaration.
func readDeclaration(file string, name schema.ProjectName) (manifest.Declaration, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return manifest.Declaration{}, addPermissionHint("read", err)
	}
	d, err := manifest.ParseDeclaration(text, string(name))
	if err != nil {
		return d, &cli.Error{Err: fmt.Errorf("cannot read the declaration: %s: %w", file, err), Hint: "correct the file and try again; keyhatchctl did not change anything"}
	}
	return d, nil
}

// removeDeclaration removes a project's file, if there is one.
func removeDeclaration(ctx context.Context, admin *client.Admin, name schema.ProjectName) error {
	file, err := declarationPath(ctx, admin, name)
	if err != nil {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return addPermissionHint("remove", err)
	}
	return nil
}

func writeDeclaration(file string, d manifest.Declaration) error {
	text, err := d.Encode()
	if err != nil {
		return err
	}
	return addPermissionHint("write", replaceFile(file, text, declarationMode))
}

// addPermissionHint adds the failed action to an error, and a hint to a permission
// error. Usually only root can write to the projects directory.
func addPermissionHint(action string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("cannot %s the declaration: %w", action, err)
	if errors.Is(err, fs.ErrPermission) {
		return &cli.Error{Err: err, Hint: "run the command with sudo, because only root can change declared projects"}
	}
	return err
}
