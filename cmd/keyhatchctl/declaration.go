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

// declarationMode lets the broker's group read the file. The file gets that group
// from its directory, which has the set-group-ID bit.
const declarationMode = 0o640

// declarationFile is where the broker reads what is declared of a project.
func declarationFile(ctx context.Context, admin *client.Admin, name schema.ProjectName) (string, error) {
	status, err := admin.Status(ctx)
	if err != nil {
		return "", err
	}
	if status.ProjectsDir == "" {
		return "", &cli.Failure{Err: errors.New("this broker reads no declared projects"), Hint: "start it with --projects-dir DIR"}
	}
	return filepath.Join(status.ProjectsDir, string(name)+".yaml"), nil
}

// persist declares a project and registers it. The file comes first, because it
// is what may fail for want of permission; where the broker refuses the project,
// the file is put back as it was.
func persist(ctx context.Context, admin *client.Admin, request schema.RegisterRequest) (schema.RegisterResponse, error) {
	file, err := declarationFile(ctx, admin, request.Name)
	if err != nil {
		return schema.RegisterResponse{}, err
	}
	before, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return schema.RegisterResponse{}, denied(err)
	}
	was := err == nil
	if err := declare(file, manifest.Declaration{
		Name: request.Name, Path: request.ProjectPath, AllowUIDs: request.AllowUIDs, DevcontainerIDs: request.DevcontainerIDs, Manifest: *request.Manifest,
	}); err != nil {
		return schema.RegisterResponse{}, err
	}
	request.Declared = true
	response, err := admin.Register(ctx, request)
	if err == nil {
		return response, nil
	}
	undo := os.Remove(file)
	if was {
		undo = replace(file, before, declarationMode)
	}
	return response, errors.Join(err, undo)
}

// redeclare puts another manifest into a declared project's file.
func redeclare(ctx context.Context, admin *client.Admin, name schema.ProjectName, text string) error {
	file, err := declarationFile(ctx, admin, name)
	if err != nil {
		return err
	}
	old, err := os.ReadFile(file)
	if err != nil {
		return denied(err)
	}
	d, err := manifest.ParseDeclaration(old, string(name))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	d.Manifest = text
	return declare(file, d)
}

// undeclare removes a project's file, if there is one.
func undeclare(ctx context.Context, admin *client.Admin, name schema.ProjectName) error {
	file, err := declarationFile(ctx, admin, name)
	if err != nil {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return denied(err)
	}
	return nil
}

func declare(file string, d manifest.Declaration) error {
	text, err := d.Encode()
	if err != nil {
		return err
	}
	return denied(replace(file, text, declarationMode))
}

// denied says what to do about a directory that is root's.
func denied(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return &cli.Failure{Err: err, Hint: "what is declared is for root to write: use sudo"}
	}
	return err
}
