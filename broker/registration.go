package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// A refusal is the error of a refused request. It contains the code and the message that the
// client gets.
type refusal struct {
	code     schema.Code
	message  string
	recorded bool // whether the audit log already contains an event for this refusal
}

func (r *refusal) Error() string { return r.message }

// refuse returns a refusal. Its message goes to the client, so each argument must be
// validated or must come from the broker itself.
func refuse(code schema.Code, format string, args ...any) error {
	return &refusal{code: code, message: fmt.Sprintf(format, args...)}
}

// checkRegistration checks everything in a registration except its manifest.
func checkRegistration(r schema.RegisterRequest) error {
	if err := checkProjectName(r.Name); err != nil {
		return err
	}
	path := r.ProjectPath
	switch {
	case !filepath.IsAbs(path) || filepath.Clean(path) != path:
		return refuse(schema.CodeProtocolError, "project_path must be an absolute path without ., .., double slashes, or a trailing slash")
	case strings.ContainsRune(path, 0) || len(path) >= unix.PathMax:
		return refuse(schema.CodeProtocolError, "project_path must have fewer than %d bytes and must not contain a NUL byte", unix.PathMax)
	case slices.Contains(r.AllowUIDs, schema.UnmappedUID):
		return refuse(schema.CodeProtocolError, "allow_uids must not contain %d, because the kernel reports this uid for every unknown user", schema.UnmappedUID)
	}
	for _, id := range r.DevcontainerIDs {
		if !schema.ValidDevcontainerID(id) {
			return refuse(schema.CodeProtocolError, "each id in devcontainer_ids must match %s", schema.DevcontainerIDPattern)
		}
	}
	return nil
}

func checkProjectName(name schema.ProjectName) error {
	if schema.ValidProjectName(name) {
		return nil
	}
	return refuse(schema.CodeProtocolError, "name must match %s", schema.ProjectNamePattern)
}

// registrationOf returns the registration that a declaration describes.
func registrationOf(d manifest.Declaration) schema.RegisterRequest {
	return schema.RegisterRequest{
		Op: schema.OpRegister, Name: d.Name, ProjectPath: d.Path, Manifest: &d.Manifest,
		AllowUIDs: d.AllowUIDs, DevcontainerIDs: d.DevcontainerIDs, Declared: true,
	}
}

// compareRegistrations returns the parts that differ between the registration of a served
// project and a declared registration with the same name.
func compareRegistrations(served, declared schema.RegisterRequest) (differences []string) {
	if served.ProjectPath != declared.ProjectPath {
		differences = append(differences, "path")
	}
	if *served.Manifest != *declared.Manifest {
		differences = append(differences, "manifest")
	}
	if !slices.Equal(served.AllowUIDs, declared.AllowUIDs) {
		differences = append(differences, "uids")
	}
	if !slices.Equal(served.DevcontainerIDs, declared.DevcontainerIDs) {
		differences = append(differences, "dev container IDs")
	}
	return differences
}

// readManifest parses the text of a manifest. If text is nil, readManifest reads the manifest
// file in the project's directory. readManifest also returns the text that it has parsed.
func readManifest(projectPath string, text *string) (parsed *manifest.Manifest, parsedText string, err error) {
	if text != nil {
		parsedText = *text
	} else {
		var file manifest.File
		file, err = manifest.Read(projectPath)
		parsedText = string(file.Text)
	}
	if err == nil {
		parsed, err = manifest.Parse([]byte(parsedText))
	}
	if errors.Is(err, manifest.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return nil, "", refuse(schema.CodeManifestNotFound, "%v", err)
	}
	if err != nil {
		return nil, "", refuse(schema.CodeManifestInvalid, "%v", err)
	}
	return parsed, parsedText, nil
}

// describeWithoutSecrets returns a text for an error, without the names of secrets. An
// error in a manifest can contain the name of a secret, but the status and the log must not
// contain such names.
func describeWithoutSecrets(err error) string {
	if e, ok := errors.AsType[*manifest.Error](err); ok {
		return e.WithoutText()
	}
	return err.Error()
}

// ownerOf returns the uid that owns a project's directory, as a list. The list is nil if the broker
// cannot see the directory, or if the kernel cannot map the owner's uid.
func ownerOf(projectPath string) []uint32 {
	info, err := os.Stat(projectPath)
	if err != nil {
		return nil
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if owner == schema.UnmappedUID {
		return nil
	}
	return []uint32{owner}
}

// allowedUIDs returns the uids that may use a project's socket. These are root, the
// broker's own uid, and the approved uids. The current owner of the project's directory is
// not added, because somebody can change the owner after the approval.
func allowedUIDs(approved []uint32) []uint32 {
	return append([]uint32{0, uint32(os.Geteuid())}, approved...)
}
