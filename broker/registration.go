package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// A refusal is an error with a code for the client.
type refusal struct {
	code    schema.Code
	message string
}

func (r *refusal) Error() string { return r.message }

// refuse returns a refusal. The arguments must be validated, or the broker's own.
func refuse(code schema.Code, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
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
	case filepath.Base(path) != string(r.Name):
		return refuse(schema.CodeProtocolError, "name must be the base name of project_path")
	case slices.Contains(r.AllowUIDs, endpoint.UnmappedUID):
		return refuse(schema.CodeProtocolError, "allow_uids must not contain %d, because the kernel reports this uid for every unknown user", endpoint.UnmappedUID)
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

// differsOnlyInManifest reports whether everything else in two registrations is
// equal.
func differsOnlyInManifest(a, b schema.RegisterRequest) bool {
	return a.ProjectPath == b.ProjectPath && slices.Equal(a.AllowUIDs, b.AllowUIDs) &&
		slices.Equal(a.DevcontainerIDs, b.DevcontainerIDs)
}

// readManifest parses the text of a manifest. If text is nil, it reads the
// manifest in the project's directory. It also returns the text that it parsed.
func readManifest(name schema.ProjectName, projectPath string, text *string) (parsed *manifest.Manifest, parsedText string, err error) {
	var raw []byte
	if text != nil {
		raw = []byte(*text)
	} else {
		raw, _, err = manifest.ReadFromDir(projectPath)
	}
	if err == nil {
		parsed, err = manifest.Parse(raw, name)
	}
	if errors.Is(err, manifest.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return nil, "", refuse(schema.CodeManifestNotFound, "%v", err)
	}
	if err != nil {
		return nil, "", refuse(schema.CodeManifestInvalid, "%v", err)
	}
	return parsed, string(raw), nil
}

// allowedUIDs returns the uids that may use a project's socket: root, the broker's
// own uid, the owner of the project's directory if the broker can see it, and
// extra.
func allowedUIDs(projectPath string, extra []uint32) []uint32 {
	uids := append([]uint32{0, uint32(os.Geteuid())}, extra...)
	if info, err := os.Stat(projectPath); err == nil {
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != endpoint.UnmappedUID {
			uids = append(uids, owner)
		}
	}
	slices.Sort(uids)
	return slices.Compact(uids)
}
