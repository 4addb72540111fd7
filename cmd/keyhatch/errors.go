package main

import (
	"errors"
	"fmt"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/keyhatch/keyhatch/schema"
)

// The exit codes beside those of package cli.
const (
	exitUnreachable = 3
	exitDenied      = 4
	exitNotFound    = 5 // or not loaded
)

// errNotText means that a value is not UTF-8 and the export format accepts only that.
var errNotText = errors.New("the format takes only UTF-8")

// withHint adds an exit code and a hint to an error. It returns other errors unchanged,
// and nil for nil.
func withHint(err error) error {
	if errors.Is(err, client.ErrUnreachable) {
		return &cli.Error{Err: err, ExitCode: exitUnreachable,
			Hint: "is the project registered (keyhatchctl register DIR), and its directory mounted at /run/keyhatch?"}
	}
	code := client.CodeOf(err)
	if missing, ok := errors.AsType[*devcontainer.MissingError](err); ok {
		code = missing.Secrets[0].Code
	}
	if hint := localHint(err); hint != "" {
		return &cli.Error{Err: err, Hint: hint}
	}
	switch code {
	case schema.CodeRateLimited:
		return &cli.Error{Err: err, Hint: "try again in a second"}
	case schema.CodeDenied:
		return &cli.Error{Err: err, ExitCode: exitDenied,
			Hint: "add the name to secrets in the manifest, then on the host: keyhatchctl reload DIR"}
	case schema.CodeNotFound:
		return &cli.Error{Err: err, ExitCode: exitNotFound, Hint: "put it into the sidecar's store: keyhatch-sidecar set NAME"}
	case schema.CodeNotLoaded:
		return &cli.Error{Err: err, ExitCode: exitNotFound, Hint: "is the sidecar running? --wait 15s waits for its push"}
	case schema.CodePeerUnexpected:
		return &cli.Error{Err: err, Hint: "on the host: keyhatchctl register DIR --allow-uid " + fmt.Sprint(devcontainer.RefusedUID(err))}
	}
	return err
}

// localHint returns the hint for an error that is not the broker's, or "".
func localHint(err error) string {
	switch {
	case errors.Is(err, devcontainer.ErrVariableValue):
		return "a file can hold it: declare it with as: file in the manifest, for keyhatch files; --only leaves it out here"
	case errors.Is(err, errNotText):
		return "a file can hold it: declare it with as: file in the manifest, for keyhatch files; --format shell takes all but NUL"
	case errors.Is(err, devcontainer.ErrTemplate):
		return "the fields of a bundle are {{field}}, and of any other secret there is {{value}}"
	case errors.Is(err, devcontainer.ErrPathOccupied):
		return "move it away, or give the secret another path in the manifest: keyhatch replaces only its own links"
	case errors.Is(err, devcontainer.ErrNoMemoryDir):
		return "secret files are kept in memory only: the container needs a tmpfs at /dev/shm (docker run --shm-size, not a volume), and nobody else's directory in it"
	case errors.Is(err, devcontainer.ErrVariableName):
		return "give the secret a variable with env: in the manifest, or leave it out with --only"
	}
	return ""
}
