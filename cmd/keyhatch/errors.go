package main

import (
	"errors"
	"fmt"
	"strings"

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

const doctorHint = "find the cause: keyhatch doctor"

// errNotText means that a value is not valid UTF-8, but the export format requires valid
// UTF-8.
var errNotText = errors.New("the value is not valid UTF-8")

// withHint adds a hint to a known error, and for some errors also an exit code. It
// returns any other error, and nil, unchanged.
func withHint(err error) error { return withHintFor(err, "NAME", "") }

// withHintFor works like withHint. name is the secret that the error is about, and becomes
// part of some hints. If err is a *devcontainer.MissingError, the hint contains a name from
// this error instead. waitCommand is the failed command with the flag --wait, or "" if the
// hint must not suggest this flag.
func withHintFor(err error, name schema.SecretName, waitCommand string) error {
	if errors.Is(err, client.ErrUnreachable) {
		return &cli.Error{Err: err, ExitCode: exitUnreachable, Hint: doctorHint}
	}
	code := client.CodeOf(err)
	if missing, ok := errors.AsType[*devcontainer.MissingError](err); ok {
		name, code = missing.Secrets[0].Name, missing.Secrets[0].Code
	}
	if hint := localHint(err); hint != "" {
		return &cli.Error{Err: err, Hint: hint}
	}
	switch code {
	case schema.CodeProtocolError:
		if strings.Contains(err.Error(), "admin socket") {
			return &cli.Error{Err: err, Hint: doctorHint}
		}
	case schema.CodeRateLimited:
		return &cli.Error{Err: err, Hint: "try again after one second"}
	case schema.CodeDenied:
		return &cli.Error{Err: err, ExitCode: exitDenied,
			Hint: fmt.Sprintf("add %s under secrets in the manifest, then %skeyhatchctl reload DIR", name, devcontainer.AskOperator)}
	case schema.CodeNotFound:
		return &cli.Error{Err: err, ExitCode: exitNotFound,
			Hint: fmt.Sprintf("ask the operator to run in the sidecar: keyhatch-sidecar set %s --store dir:PATH", name)}
	case schema.CodeNotLoaded:
		hint := devcontainer.AskOperator + "keyhatchctl doctor"
		if waitCommand != "" {
			hint = "wait for the sidecar: " + waitCommand + "\nif this fails, " + hint
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
		return "correct the template in the manifest: for a bundle, write {{FIELD}} with the name of a field; for any other secret, write {{value}}"
	case errors.Is(err, devcontainer.ErrPathOccupied):
		return "move the existing file, or declare another path in the manifest; keyhatch replaces only its own links"
	case errors.Is(err, devcontainer.ErrLinkReplaced):
		return "if the file contains a secret, remove the file; to keep the file, run keyhatch files --remove, which does not change this file, and then keyhatch files"
	case errors.Is(err, devcontainer.ErrNoMemoryDir):
		return "use a container with a tmpfs, not a volume, at /dev/shm (docker run --tmpfs /dev/shm); if the directory in the error message has the wrong owner or mode, remove that directory"
	case errors.Is(err, devcontainer.ErrVariableName):
		return "declare a variable for the secret with env: in the manifest, or select other secrets with --only"
	}
	return ""
}
