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

// errProtocolSkew means that the broker uses another protocol version.
var errProtocolSkew = errors.New("protocol versions differ")

// withAdmin connects to the admin socket, checks that both ends use the same protocol version,
// and calls fn. It adds a hint to an error if the error is known (see addHint).
func (o *globalOptions) withAdmin(ctx context.Context, fn func(*client.Admin) error) error {
	socket := o.adminSocket()
	if socket == "" {
		return cli.NoSocketError()
	}
	admin, err := client.DialAdminWithToken(ctx, socket, o.tokenFile)
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

// addHint adds a hint to a known error of the broker, of the connection, or of a declaration. It
// returns any other error unchanged.
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
		hint = "the broker has refused the push, and its secrets have not changed"
	case schema.CodeRateLimited:
		hint = "the broker has too many connections: retry after a second"
	case schema.CodeProtocolError:
		switch {
		case strings.Contains(err.Error(), "project socket"):
			hint = cli.AdminSocketHint(socket)
		case strings.Contains(err.Error(), "operations of the admin socket"):
			hint = "this command needs a newer broker; find the fix: " + o.command("doctor")
		case strings.Contains(err.Error(), "--admin-token-file"):
			hint = cli.UnusedTokenHint(o.tokenFile)
		}
	case schema.CodeUnauthorized:
		refusal, _ := errors.AsType[*client.Error](err)
		hint = cli.UnauthorizedHint(refusal.TokenFile, o.tokenFile, socket)
	}
	if _, ok := errors.AsType[*client.TokenFileError](err); ok {
		hint = cli.TokenFileHint(err, o.tokenFile, socket)
	}
	if untrusted, ok := errors.AsType[*client.UntrustedListenerError](err); ok {
		hint = cli.UntrustedListenerHint(untrusted.UID)
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
