package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// globalOptions are the flags that all commands have.
type globalOptions struct {
	socket string
	asJSON bool
}

// errProtocolSkew says that the two ends are not of one protocol.
var errProtocolSkew = errors.New("protocol skew")

// withAdmin connects to the admin socket, checks that both ends use the same
// protocol, and calls fn. It adds a hint to every error.
func (o *globalOptions) withAdmin(ctx context.Context, fn func(*client.Admin) error) error {
	socket := o.socket
	if socket == "" {
		socket = cli.DefaultAdminSocket()
	}
	if socket == "" {
		return cli.UsageErrorf("neither --socket nor XDG_RUNTIME_DIR says where the admin socket is")
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
			Err:  fmt.Errorf("%w: the broker speaks protocol %d, and this keyhatchctl %d", errProtocolSkew, pong.ProtocolVersion, schema.ProtocolVersion),
			Hint: "install the keyhatchctl that came with the broker, version " + pong.BrokerVersion,
		}
	}
	return o.addHint(fn(admin), socket)
}

// addHint adds a hint to an error of the broker, or to the error of a failed
// connection.
func (o *globalOptions) addHint(err error, socket string) error {
	hint := ""
	switch client.CodeOf(err) {
	case schema.CodeProjectExists:
		hint = "keyhatchctl reload takes a changed manifest; unregister first to change anything else"
	case schema.CodeProjectUnknown:
		hint = "keyhatchctl projects lists those that are registered"
	case schema.CodeManifestInvalid:
		hint = "mend the manifest and try again; nothing was changed"
	case schema.CodeInvalidPayload, schema.CodePayloadTooLarge:
		hint = "nothing was changed; what was there before is still served"
	case schema.CodeRateLimited:
		hint = "too many are connected: try again in a second"
	case schema.CodeProtocolError:
		hint = "is " + socket + " the admin socket? A project's socket takes none of these commands"
	}
	switch {
	case errors.Is(err, client.ErrUnreachable) && errors.Is(err, fs.ErrPermission):
		hint = "the socket is for root and group keyhatch: join the group, or use sudo"
	case errors.Is(err, client.ErrUnreachable):
		hint = "is keyhatchd running? It should listen at " + socket
		if o.socket == "" && os.Geteuid() != 0 {
			hint += "; the system's own is reached with --socket /run/keyhatch/admin/admin.sock"
		}
	}
	if hint == "" {
		return err
	}
	return &cli.Error{Err: err, Hint: hint}
}
