package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// A proposal is a registration that the operator has not approved yet.
type proposal struct {
	registered *schema.InspectResponse // nil if no project is registered or declared at this path
	request    schema.RegisterRequest
	folders    []proposedFolder // empty for reload, which adds no folder
	file       manifest.File
	changes    []manifest.Change
	logins     []string // the first result of manifest.NewHosts: new or changed logins
	fileHosts  []string // the second result of manifest.NewHosts: new hosts in files
	declare    bool     // if true, apply also writes the declaration of the project
	// unrequested means that the proposal contains a change that the command line did not ask
	// for, a dangerous effect of a new project, or a new folder that leads to the project only
	// through a symbolic link. Untrusted code with write access to the project's tree or to the
	// link could have caused such a change.
	unrequested     bool
	approvalCommand string // the command that approves the changes without a question
	// keepsDeclaration means that apply replaces only the manifest in the project's declaration.
	// The operator may have edited other parts of the declaration.
	keepsDeclaration bool
	// devcontainerDangers contains the lines about the dev container that up starts.
	devcontainerDangers []string
}

// A proposedFolder is a path of the project's directory. A dev container that is opened by this
// path can mount the project's socket.
type proposedFolder struct {
	path           string
	ignoredConfigs int // number of devcontainer.json files beyond maxFolderIDs
}

// proposeRegistration reads the project in dir, and compares it with the registration of the same
// path. It returns an error if the registration cannot succeed, for example if the manifest is
// invalid or the broker would refuse the name.
func proposeRegistration(ctx context.Context, admin *client.Admin, o *globalOptions, dir projectDir, options registerOptions) (p proposal, err error) {
	file, parsed, err := readManifest(dir.path)
	if err != nil {
		return p, err
	}
	status, err := admin.Status(ctx)
	if err != nil {
		return p, err
	}
	if replaced := findReplaced(status, dir.paths); replaced != nil {
		return p, &cli.Error{Err: replaced, Hint: "if project " + string(replaced.project.Name) + " did not move, replace the symbolic link with the directory\n" +
			"to end the project's access to secrets: " + unregisterShellCommand(o, replaced.project, status)}
	}
	text := string(file.Text)
	p.file, p.declare = file, options.persist
	p.request = schema.RegisterRequest{ProjectPath: dir.path, Manifest: &text, Name: parsed.Project}
	if options.name != "" {
		p.request.Name = schema.ProjectName(options.name)
	}
	if !schema.ValidProjectName(p.request.Name) {
		return p, cli.UsageErrorf("--name: %q does not match %s", p.request.Name, schema.ProjectNamePattern)
	}
	if p.registered, err = findRegistration(ctx, admin, status, dir.path, p.request.Name); err != nil {
		return p, err
	}
	var old *manifest.Manifest
	if p.registered != nil {
		old = parseApproved(*p.registered)
		p.request.Replace = true
		p.declare = p.declare || p.registered.Declared
		// Without --name, a name that the operator chose earlier with --name stays in effect.
		if options.name == "" && (old == nil || p.registered.Name != old.Project) {
			p.request.Name = p.registered.Name
		}
	}
	p.approvalCommand = o.registerCommand(dir.typed, options, status, "--yes")
	if err := p.checkDeclarations(status); err != nil {
		return p, err
	}
	currentUIDs, err := p.addCurrent(status)
	if err != nil {
		return p, err
	}
	if p.request.AllowUIDs, err = chooseUIDs(dir.path, options, currentUIDs); err != nil {
		return p, err
	}
	var currentIDs []schema.DevcontainerID
	for _, folder := range dir.folders() {
		ids, ignored := devcontainerIDs(folder)
		danger := ""
		if folder != dir.path {
			danger = "whoever can replace the symbolic link in this path can mount the socket"
		}
		if p.addDevcontainers(cli.PrintableWord(folder), ids, danger) && danger != "" {
			p.unrequested = true
		}
		p.folders = append(p.folders, proposedFolder{folder, ignored})
		currentIDs = append(currentIDs, ids...)
	}
	p.limitDevcontainers(currentIDs)
	if err := checkRegistration(ctx, admin, o, p.request, dir, options, status); err != nil {
		return p, err
	}
	if isNewName := p.registered == nil || p.registered.Name != p.request.Name; isNewName && !p.declare {
		if err := checkUndeclaredName(status, p.request); err != nil {
			return p, err
		}
	}
	p.logins, p.fileHosts = manifest.NewHosts(old, parsed)
	// Omit a change of the name in the manifest, because registrationChanges reports whether
	// the name of the project changes.
	effects := slices.DeleteFunc(manifest.Changes(old, parsed), func(c manifest.Change) bool { return c.Subject == "project" })
	if p.registered == nil {
		p.changes = append(p.changes, effects...)
		p.unrequested = p.unrequested || slices.ContainsFunc(effects, func(c manifest.Change) bool { return c.Danger != "" })
		return p, nil
	}
	p.changes = slices.Concat(registrationChanges(*p.registered, currentUIDs, p.request), p.changes, effects)
	if len(effects) > 0 || options.name == "" && p.request.Name != p.registered.Name {
		p.unrequested = true
	}
	for _, uid := range p.request.AllowUIDs {
		if slices.Contains(union(p.registered.AllowUIDs, currentUIDs), uid) || slices.Contains(options.uids, uint(uid)) {
			continue
		}
		p.unrequested = true // the directory has a new owner, which has this uid
		i := slices.IndexFunc(p.changes, func(c manifest.Change) bool { return c.Subject == "allowed uids" })
		p.changes[i].Danger = fmt.Sprintf("uid %d now owns the directory, but was not approved; a container that can change the owner can choose this uid", uid)
	}
	return p, nil
}

// addCurrent copies the project's current dev container IDs into the request, and returns the
// project's current uids. If the request will replace a declaration, addCurrent returns the uids
// in the declaration, because the operator may have edited that file.
func (p *proposal) addCurrent(status schema.StatusResponse) (currentUIDs []uint32, err error) {
	if p.registered != nil {
		p.request.DevcontainerIDs, currentUIDs = p.registered.DevcontainerIDs, p.registered.AllowUIDs
	}
	if !p.declare {
		return currentUIDs, nil
	}
	file, err := declarationPath(status, p.declaredName())
	if err != nil {
		return nil, err
	}
	declared, err := readDeclaration(file, p.declaredName())
	if errors.Is(err, fs.ErrNotExist) {
		return currentUIDs, nil
	}
	if err != nil {
		return nil, err
	}
	p.addDevcontainers("the declaration", declared.DevcontainerIDs, "")
	return declared.AllowUIDs, nil
}

// checkDeclarations returns an error if apply must not change the project or its declaration: if
// the broker has not applied a declaration of the project's path, or if apply would replace a
// declaration of another path.
func (p proposal) checkDeclarations(status schema.StatusResponse) error {
	if p.registered != nil {
		// If the proposal will replace the declaration, compare only the manifests. The proposal
		// already contains the uids and the dev containers of the declaration.
		if err := checkApplied(status, *p.registered, func(own manifest.Declaration) bool {
			return p.declare && own.Manifest == p.registered.Manifest
		}); err != nil {
			return err
		}
	}
	if !p.declare {
		return nil
	}
	if err := checkDeclaredPath(status, p.declaredName(), p.request); err != nil {
		return err
	}
	return checkDeclaredPath(status, p.request.Name, p.request)
}

// declaredName returns the name in the project's current declaration. If the project is not
// declared, declaredName returns the name that a new declaration would have.
func (p proposal) declaredName() schema.ProjectName {
	if p.registered != nil && p.registered.Declared {
		return p.registered.Name
	}
	return p.request.Name
}

// addDevcontainers adds dev container IDs to the request, and reports whether an ID is new. If an
// ID is new, addDevcontainers also adds a change to the proposal. For a new project, it adds only
// a dangerous change. place describes where the IDs come from. danger is "" if the change is not
// dangerous.
func (p *proposal) addDevcontainers(place string, ids []schema.DevcontainerID, danger string) bool {
	all := union(p.request.DevcontainerIDs, ids)
	added := len(all) - len(p.request.DevcontainerIDs)
	p.request.DevcontainerIDs = all
	if added > 0 && (p.registered != nil || danger != "") {
		p.changes = append(p.changes, manifest.Change{Subject: "dev containers in " + place, Danger: danger, New: "can mount the socket (" + cli.Plural(added, "possible path") + " of devcontainer.json)"})
	}
	return added > 0
}

// limitDevcontainers removes dev container IDs beyond maxProjectIDs from the request, and adds
// this change to the proposal. It keeps the IDs in current if possible, because they belong to
// the current devcontainer.json files.
func (p *proposal) limitDevcontainers(current []schema.DevcontainerID) {
	ids := union(current, p.request.DevcontainerIDs)
	removed := len(ids) - maxProjectIDs
	if removed <= 0 {
		return
	}
	p.request.DevcontainerIDs = ids[:maxProjectIDs]
	p.changes = append(p.changes, manifest.Change{Subject: "dev containers of earlier devcontainer.json files", Old: "can mount the socket (" + cli.Plural(removed, "ID") + ")"})
}

// proposeManifest proposes the current manifest of a registered project. The rest of the
// registration does not change, except that limitDevcontainers can remove dev container
// IDs.
func proposeManifest(ctx context.Context, admin *client.Admin, name schema.ProjectName) (p proposal, err error) {
	var old *manifest.Manifest
	if p.registered, old, err = inspect(ctx, admin, name); err != nil {
		return p, err
	}
	file, parsed, err := readManifest(p.registered.ProjectPath)
	if err != nil {
		return p, err
	}
	text := string(file.Text)
	p.file, p.changes = file, manifest.Changes(old, parsed)
	p.logins, p.fileHosts = manifest.NewHosts(old, parsed)
	p.unrequested, p.declare, p.keepsDeclaration = true, p.registered.Declared, true
	p.request = schema.RegisterRequest{
		Name: name, ProjectPath: p.registered.ProjectPath, Manifest: &text,
		AllowUIDs: p.registered.AllowUIDs, DevcontainerIDs: p.registered.DevcontainerIDs, Replace: true,
	}
	p.limitDevcontainers(nil)
	status, err := admin.Status(ctx)
	if err != nil {
		return p, err
	}
	return p, p.checkDeclarations(status)
}

// registrationChanges compares the names and the uids of two registrations. currentUIDs are
// the uids in the declaration, or the uids of the old registration.
func registrationChanges(old schema.InspectResponse, currentUIDs []uint32, new schema.RegisterRequest) (changes []manifest.Change) {
	add := func(subject, before, after string) {
		if before != after {
			changes = append(changes, manifest.Change{Subject: subject, Old: before, New: after})
		}
	}
	add("name", string(old.Name), string(new.Name))
	add("allowed uids", formatUIDs(old.AllowUIDs), formatUIDs(new.AllowUIDs))
	if !slices.Equal(currentUIDs, old.AllowUIDs) {
		add("uids in the declaration", formatUIDs(currentUIDs), formatUIDs(new.AllowUIDs))
	}
	return changes
}

// isUnchanged reports whether the broker already serves exactly the registration in the proposal.
func (p proposal) isUnchanged() bool {
	return p.registered != nil && !p.registered.Unserved && len(p.changes) == 0 && *p.request.Manifest == p.registered.Manifest
}

// A proposalResult is the output of register and reload with --json.
type proposalResult struct {
	OK             bool                `json:"ok"`
	Name           schema.ProjectName  `json:"name"`
	ProjectPath    string              `json:"project_path"`
	SocketPath     string              `json:"socket_path,omitempty"` // absent with --dry-run
	Manifest       string              `json:"manifest_file"`
	Ignored        string              `json:"ignored_manifest_file,omitempty"`
	AllowUIDs      []uint32            `json:"allow_uids"`
	Folders        []string            `json:"devcontainer_folders,omitempty"`       // absent for reload, which adds no folder
	IgnoredConfigs int                 `json:"ignored_devcontainer_files,omitempty"` // number of devcontainer.json files beyond maxFolderIDs
	Unserved       bool                `json:"unserved,omitempty"`                   // the project is registered or declared, but the broker did not serve it
	Allowlist      []schema.SecretName `json:"allowlist"`
	Changes        []manifest.Change   `json:"changes"`
}

func (p proposal) result(socketPath string) (proposalResult, error) {
	parsed, err := manifest.Parse([]byte(*p.request.Manifest))
	if err != nil {
		return proposalResult{}, err
	}
	changes := p.changes
	if changes == nil {
		changes = []manifest.Change{}
	}
	var folders []string
	ignoredConfigs := 0
	for _, folder := range p.folders {
		folders = append(folders, folder.path)
		ignoredConfigs += folder.ignoredConfigs
	}
	return proposalResult{
		OK: true, Name: p.request.Name, ProjectPath: p.request.ProjectPath, SocketPath: socketPath, Manifest: p.file.Path, Ignored: p.file.Ignored,
		AllowUIDs: p.request.AllowUIDs, Folders: folders, IgnoredConfigs: ignoredConfigs, Unserved: p.registered != nil && p.registered.Unserved,
		Allowlist: parsed.Allowlist(), Changes: changes,
	}, nil
}

// errChangedMeanwhile means that the registration changed after keyhatchctl had shown the
// proposal.
var errChangedMeanwhile = errors.New("the registration has changed since it was shown: run the command again")

// apply sends the registration to the broker. If the project is declared, apply also writes the
// declaration. If the registration has changed since the proposal was shown, apply changes
// nothing and returns errChangedMeanwhile.
func (p proposal) apply(ctx context.Context, admin *client.Admin) (socketPath string, err error) {
	status, err := admin.Status(ctx)
	if err != nil {
		return "", err
	}
	current, err := findRegistration(ctx, admin, status, p.request.ProjectPath, p.request.Name)
	if err != nil {
		return "", err
	}
	if !reflect.DeepEqual(current, p.registered) {
		return "", errChangedMeanwhile
	}
	if err := p.checkDeclarations(status); err != nil {
		return "", err
	}
	if !p.declare {
		response, err := admin.Register(ctx, p.request)
		return response.SocketPath, err
	}
	response, err := declareAndRegister(ctx, admin, p.request, p.declaredName(), p.keepsDeclaration)
	return response.SocketPath, err
}
