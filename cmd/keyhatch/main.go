// Command keyhatch runs inside project containers: it fetches the secrets that
// the project's manifest allows and hands them to programs.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// defaultSocket is where a container mounts its project's directory.
const defaultSocket = "/run/keyhatch/broker.sock"

// The exit codes beside those of package cli.
const (
	exitUnreachable = 3
	exitDenied      = 4
	exitNotFound    = 5 // or not loaded
)

func main() {
	c := command()
	c.SetArgs(arguments(os.Args))
	os.Exit(cli.Run(c))
}

func command() *cobra.Command {
	var socket string
	c := &cobra.Command{
		Use:   "keyhatch",
		Short: "Fetch the secrets that this project may have",
		Long: `keyhatch fetches secrets from the broker's socket that is mounted into this
container. The project's manifest decides which; whatever else there is, is
denied.

Exit codes: 0 ok, 1 other, 2 usage, 3 broker unreachable, 4 denied, 5 not found
or not loaded. run exits 125 for its own failures, 126 and 127 where the command
cannot be run or found, and otherwise as the command does.`,
		Example: `  keyhatch list
  keyhatch get NPM_TOKEN
  keyhatch run -- npm ci
  eval "$(keyhatch export)"
  keyhatch files --watch`,
	}
	fallback := os.Getenv("KEYHATCH_SOCKET")
	if fallback == "" {
		fallback = defaultSocket
	}
	c.PersistentFlags().StringVar(&socket, "socket", fallback, "the project's socket (KEYHATCH_SOCKET)")
	project := func() *client.Project { return client.NewProject(socket) }
	c.AddCommand(getCommand(project), listCommand(project), runCommand(project), exportCommand(project), filesCommand(project),
		credentialCommand(project, &socket), doctorCommand(&socket))
	return c
}

// checkWait holds --wait to what the protocol takes.
func checkWait(wait time.Duration) error {
	if wait < 0 || wait > schema.MaxWait {
		return cli.Usage("--wait must be between 0 and %v", schema.MaxWait)
	}
	return nil
}

func secretName(name string) (schema.SecretName, error) {
	if !schema.ValidSecretName(name) {
		return "", cli.Usage("a secret's name must match %s", schema.SecretNamePattern)
	}
	return schema.SecretName(name), nil
}

// failure gives an error of the broker's, or of the way to it, its exit code and
// its hint.
func failure(err error) error {
	if errors.Is(err, client.ErrUnreachable) {
		return &cli.Failure{Err: err, Code: exitUnreachable,
			Hint: "is the project registered (keyhatchctl register DIR), and its directory mounted at /run/keyhatch?"}
	}
	code := client.CodeOf(err)
	if missing, ok := errors.AsType[*devcontainer.Missing](err); ok {
		code = missing.Why[0].Code
	}
	if hint := local(err); hint != "" {
		return &cli.Failure{Err: err, Hint: hint}
	}
	switch code {
	case schema.CodeRateLimited:
		return &cli.Failure{Err: err, Hint: "try again in a second"}
	case schema.CodeDenied:
		return &cli.Failure{Err: err, Code: exitDenied,
			Hint: "add the name to secrets in the manifest, then on the host: keyhatchctl reload DIR"}
	case schema.CodeNotFound:
		return &cli.Failure{Err: err, Code: exitNotFound, Hint: "put it into the sidecar's store: keyhatch-sidecar set NAME"}
	case schema.CodeNotLoaded:
		return &cli.Failure{Err: err, Code: exitNotFound, Hint: "is the sidecar running? --wait 15s waits for its push"}
	case schema.CodePeerUnexpected:
		return &cli.Failure{Err: err, Hint: "on the host: keyhatchctl register DIR --allow-uid " + fmt.Sprint(devcontainer.RefusedUID(err))}
	}
	return err
}

// local is the way out of what goes wrong on this side of the socket.
func local(err error) string {
	switch {
	case errors.Is(err, devcontainer.ErrNotForEnvironment):
		return "a file can hold it: declare it with as: file in the manifest, for keyhatch files; --only leaves it out here"
	case errors.Is(err, errNotText):
		return "a file can hold it: declare it with as: file in the manifest, for keyhatch files; --format shell takes all but NUL"
	case errors.Is(err, devcontainer.ErrTemplate):
		return "the fields of a bundle are {{field}}, and of any other secret there is {{value}}"
	case errors.Is(err, devcontainer.ErrOccupied):
		return "move it away, or give the secret another path in the manifest: keyhatch replaces only its own links"
	case errors.Is(err, devcontainer.ErrNoMemoryDir):
		return "secret files are kept in memory only: the container needs a tmpfs at /dev/shm (docker run --shm-size, not a volume), and nobody else's directory in it"
	case errors.Is(err, devcontainer.ErrNotVariable):
		return "give the secret a variable with env: in the manifest, or leave it out with --only"
	}
	return ""
}

// sameProtocol asks who is there, and refuses another version before anything
// is fetched: a clear word now beats a strange answer later.
func sameProtocol(ctx context.Context, project *client.Project, wait time.Duration) error {
	pong, err := project.Ping(ctx, wait)
	if err != nil {
		return err
	}
	if pong.ProtocolVersion != schema.ProtocolVersion {
		return &cli.Failure{
			Err:  fmt.Errorf("the broker speaks protocol %d, and this keyhatch %d", pong.ProtocolVersion, schema.ProtocolVersion),
			Hint: "install the keyhatch that came with the broker, version " + pong.BrokerVersion,
		}
	}
	return nil
}
