package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/keyhatch/keyhatch/schema"
)

// The exit codes of keyhatch, in addition to the exit codes in package cli.
const (
	exitUnreachable = 3
	exitDenied      = 4
	exitNotFound    = 5 // the secret does not exist, or the broker has no secrets
)

// errNotText means that a value is not valid UTF-8, but the export format requires valid
// UTF-8.
var errNotText = errors.New("the value is not valid UTF-8")

// withHint adds an exit code and a hint to a known error. It returns any other error, and
// nil, unchanged.
func withHint(err error) error { return withHintFor(err, "NAME", "") }

// withHintFor works like withHint. name is the secret that the error is about, and the hint
// can contain this name. waitCommand is the failed command with the flag --wait, or "" if the
// failed command has no such flag.
func withHintFor(err error, name schema.SecretName, waitCommand string) error {
	if errors.Is(err, client.ErrUnreachable) {
		hint := "run keyhatch doctor to find the cause; usually, the project is not registered (run keyhatchctl register DIR on the host), or the directory of the project's socket is not mounted at /run/keyhatch"
		if errors.Is(err, fs.ErrPermission) {
			hint = fmt.Sprintf("run keyhatch doctor to find out why uid %d cannot open the socket", os.Getuid())
		}
		return &cli.Error{Err: err, ExitCode: exitUnreachable, Hint: hint}
	}
	code := client.CodeOf(err)
	if missing, ok := errors.AsType[*devcontainer.MissingError](err); ok {
		name, code = missing.Secrets[0].Name, missing.Secrets[0].Code
	}
	if hint := localHint(err); hint != "" {
		return &cli.Error{Err: err, Hint: hint}
	}
	switch code {
	case schema.CodeRateLimited:
		return &cli.Error{Err: err, Hint: "try again after one second"}
	case schema.CodeDenied:
		return &cli.Error{Err: err, ExitCode: exitDenied,
			Hint: fmt.Sprintf("add %s under secrets in the manifest, then run keyhatchctl reload DIR on the host", name)}
	case schema.CodeNotFound:
		return &cli.Error{Err: err, ExitCode: exitNotFound,
			Hint: fmt.Sprintf("in the sidecar, run keyhatch-sidecar set %s --store dir:PATH", name)}
	case schema.CodeNotLoaded:
		hint := "start the sidecar: keyhatch-sidecar run --store STORE"
		if waitCommand != "" {
			hint = "start the sidecar, or wait for it: " + waitCommand
		}
		return &cli.Error{Err: err, ExitCode: exitNotFound, Hint: hint}
	case schema.CodePeerUnexpected:
		return &cli.Error{Err: err, Hint: devcontainer.RefusedUIDFix(err)}
	}
	return err
}

// localHint returns the hint for an error that keyhatch itself detected. If there is no hint,
// localHint returns "".
func localHint(err error) string {
	switch {
	case errors.Is(err, devcontainer.ErrVariableValue):
		return "declare the secret with as: file in the manifest and use keyhatch files, or select other secrets with --only"
	case errors.Is(err, errNotText):
		return "use --format shell, or declare the secret with as: file in the manifest and use keyhatch files"
	case errors.Is(err, devcontainer.ErrTemplate):
		return "correct the template in the manifest: use {{field}} for a field of a bundle, and {{value}} for any other secret"
	case errors.Is(err, devcontainer.ErrPathOccupied):
		return "move the existing file, or declare another path in the manifest; keyhatch replaces only its own links"
	case errors.Is(err, devcontainer.ErrNoMemoryDir):
		return "use a container with a tmpfs, not a volume, at /dev/shm (docker run --tmpfs /dev/shm); if the directory in the error message has the wrong owner or mode, remove that directory"
	case errors.Is(err, devcontainer.ErrVariableName):
		return "declare a variable for the secret with env: in the manifest, or select other secrets with --only"
	}
	return ""
}
