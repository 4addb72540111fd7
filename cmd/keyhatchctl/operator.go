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

// An operator is what the commands share.
type operator struct {
	socket string
	asJSON bool
}

// errProtocolSkew says that the two ends are not of one protocol.
var errProtocolSkew = errors.New("protocol skew")

// with connects, sees that both ends speak the same protocol, and calls use.
func (o *operator) with(ctx context.Context, use func(*client.Admin) error) error {
	socket := o.socket
	if socket == "" {
		socket = cli.DefaultAdminSocket()
	}
	if socket == "" {
		return cli.Usage("neither --socket nor XDG_RUNTIME_DIR says where the admin socket is")
	}
	admin, err := client.DialAdmin(ctx, socket)
	if err != nil {
		return o.hinted(err, socket)
	}
	defer admin.Close()
	pong, err := admin.Ping(ctx)
	if err != nil {
		return o.hinted(err, socket)
	}
	if pong.ProtocolVersion != schema.ProtocolVersion {
		return &cli.Failure{
			Err:  fmt.Errorf("%w: the broker speaks protocol %d, and this keyhatchctl %d", errProtocolSkew, pong.ProtocolVersion, schema.ProtocolVersion),
			Hint: "install the keyhatchctl that came with the broker, version " + pong.BrokerVersion,
		}
	}
	return o.hinted(use(admin), socket)
}

// hinted adds what can be done about a refusal, or about nobody being there.
func (o *operator) hinted(err error, socket string) error {
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
	return &cli.Failure{Err: err, Hint: hint}
}
