package main

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// findRegistration returns the registration of the project at a path, or nil if the project is
// new. A project with a stored registration or a declaration is not new, even if the broker does
// not serve the project, because a container can prevent the broker from serving the container's
// project. name is the name that a new project would have.
func findRegistration(ctx context.Context, admin *client.Admin, status schema.StatusResponse, path string, name schema.ProjectName) (*schema.InspectResponse, error) {
	if i := slices.IndexFunc(status.Projects, func(s schema.ProjectStatus) bool { return s.ProjectPath == path }); i >= 0 {
		registered, err := admin.Inspect(ctx, status.Projects[i].Name)
		return &registered, err
	}
	for _, problem := range status.Problems {
		if problem.ProjectPath != path {
			continue
		}
		registered, err := admin.Inspect(ctx, schema.ProjectName(problem.Project))
		if err == nil && registered.ProjectPath == path {
			return &registered, nil
		}
		if err != nil && (client.CodeOf(err) != schema.CodeProjectUnknown || problem.Problem == schema.ProblemNotRestored) {
			return nil, err
		}
		if declared, err := readRegistration(status, path, schema.ProjectName(problem.Project)); declared != nil || err != nil {
			return declared, err
		}
	}
	if status.ProjectsDir == "" {
		return nil, nil
	}
	// The broker may refuse to read a declaration, for example because of the mode of the file.
	// It then does not know the path in the declaration. If this user cannot read the declaration
	// either, the project counts as new.
	declared, err := readRegistration(status, path, name)
	if errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	return declared, err
}

// readRegistration returns the registration in the declaration of the project name. If the
// file does not exist or declares another path, the result is nil.
func readRegistration(status schema.StatusResponse, path string, name schema.ProjectName) (*schema.InspectResponse, error) {
	file, err := declarationPath(status, name)
	if err != nil {
		return nil, err
	}
	d, err := readDeclaration(file, name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && d.Path != path {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &schema.InspectResponse{
		OK: true, Name: name, ProjectPath: path, Manifest: d.Manifest, AllowUIDs: d.AllowUIDs, DevcontainerIDs: d.DevcontainerIDs,
		Declared: true, Unserved: true,
	}, nil
}

// inspect returns the registration of a project and its parsed manifest. The manifest is nil if
// this version of keyhatchctl does not accept it.
func inspect(ctx context.Context, admin *client.Admin, name schema.ProjectName) (*schema.InspectResponse, *manifest.Manifest, error) {
	registered, err := admin.Inspect(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	return &registered, parseApproved(registered), nil
}

// parseApproved returns the manifest of a registration. The result is nil if this version of
// keyhatchctl does not accept the manifest.
func parseApproved(registered schema.InspectResponse) *manifest.Manifest {
	parsed, err := manifest.Parse([]byte(registered.Manifest))
	if err != nil {
		return nil
	}
	return parsed
}
