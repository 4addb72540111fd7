package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// globalOptions are the flags of all commands.
type globalOptions struct {
	socket string
	asJSON bool
}

// errProtocolSkew means that the broker uses another protocol version.
var errProtocolSkew = errors.New("protocol versions differ")

const correctManifestHint = "correct the manifest and try again; keyhatchctl did not change anything"

func (o *globalOptions) listProjectsHint() string {
	return "list the registered projects: " + o.command("projects")
}

// adminSocket returns the path of the admin socket, or "" if the path is unknown.
func (o *globalOptions) adminSocket() string {
	if o.socket != "" {
		return o.socket
	}
	return cli.DefaultAdminSocket()
}

// withAdmin connects to the admin socket, checks that both ends use the same
// protocol, and calls fn. It adds a hint to every error.
func (o *globalOptions) withAdmin(ctx context.Context, fn func(*client.Admin) error) error {
	socket := o.adminSocket()
	if socket == "" {
		return cli.NoSocketError()
	}
	admin, err := client.DialAdmin(ctx, socket)
	if err != nil {
		return o.addHint(err, socket)
	}
	defer admin.Close()
	pong, err := admin.Ping(ctx)
	if err != nil {
		return o.addHint(err, socket)
	}
	if pong.ProtocolVersion != schema.ProtocolVersion {
		return &cli.Error{
			Err:  fmt.Errorf("%w: the broker uses protocol %d, but this keyhatchctl uses protocol %d", errProtocolSkew, pong.ProtocolVersion, schema.ProtocolVersion),
			Hint: "install the keyhatchctl of the broker's release, version " + pong.BrokerVersion,
		}
	}
	err = fn(admin)
	if e, ok := errors.AsType[*unappliedDeclarationError](err); ok {
		return &cli.Error{Err: err, Hint: e.hint(o, findBrokerProcess(admin))}
	}
	return o.addHint(err, socket)
}

// command returns a keyhatchctl command that can be pasted into a shell. The command uses the
// same admin socket as this process.
func (o *globalOptions) command(args ...string) string {
	if o.socket != "" {
		args = append([]string{"--socket", o.socket}, args...)
	}
	text := "keyhatchctl"
	for _, arg := range args {
		text += " " + cli.ShellQuote(arg)
	}
	return text
}

// sudoCommand returns a command like command. sudo is "sudo " or "". With sudo, the command
// contains the socket, because the default socket of root is the system's socket.
func (o *globalOptions) sudoCommand(sudo string, args ...string) string {
	if socket := o.adminSocket(); sudo != "" && socket != cli.SystemSocket {
		o = &globalOptions{socket: socket}
	}
	return sudo + o.command(args...)
}

// addHint adds a hint to an error of the broker or of the connection.
func (o *globalOptions) addHint(err error, socket string) error {
	if failure, ok := errors.AsType[*cli.Error](err); ok && failure.Hint != "" {
		return err
	}
	hint := ""
	if e, ok := errors.AsType[*declarationError](err); ok && errors.Is(err, fs.ErrPermission) {
		hint = e.hint(socket)
	}
	if _, ok := errors.AsType[*declaredPathError](err); ok {
		hint = "find the cause and the fix: " + o.command("doctor")
	}
	switch client.CodeOf(err) {
	case schema.CodeProjectExists, schema.CodeProjectUnknown:
		hint = o.listProjectsHint()
	case schema.CodeManifestInvalid:
		hint = correctManifestHint
	case schema.CodeInvalidPayload, schema.CodePayloadTooLarge:
		hint = "the broker did not change anything and still serves the previous secrets"
	case schema.CodeRateLimited:
		hint = "the broker has too many connections: retry after a second"
	case schema.CodeProtocolError:
		if strings.Contains(err.Error(), "project socket") {
			hint = cli.AdminSocketHint(socket)
		}
	}
	switch {
	case errors.Is(err, client.ErrUnreachable) && errors.Is(err, fs.ErrPermission):
		hint = cli.PermissionHint(socket)
	case errors.Is(err, client.ErrUnreachable):
		hint = cli.StartBrokerHint(socket, o.socket != "")
	}
	if hint == "" {
		return err
	}
	return &cli.Error{Err: err, Hint: hint}
}
