package client

import (
	"context"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// Admin is one connection to a broker's admin socket. It is not safe for
// concurrent use. Any error but an *Error leaves it fit only to be closed.
type Admin struct{ conn *conn }

// DialAdmin connects to the admin socket at path.
func DialAdmin(ctx context.Context, path string) (*Admin, error) {
	c, err := dial(ctx, path)
	if err != nil {
		return nil, err
	}
	return &Admin{c}, nil
}

// Close ends the connection.
func (a *Admin) Close() error { return a.conn.Close() }

// Push replaces the broker's whole set. line is a schema.PushRequest as
// wire.Encode returns it, with its Op and its newline. Push keeps no reference to
// line. The caller wipes it.
func (a *Admin) Push(ctx context.Context, line []byte) (response schema.PushResponse, err error) {
	err = a.conn.sendLine(ctx, line, &response, 0)
	return response, err
}

// Clear drops the broker's set.
func (a *Admin) Clear(ctx context.Context) error {
	var response schema.OKResponse
	return a.conn.call(ctx, schema.ClearRequest{Op: schema.OpClear}, &response, 0)
}

// Register brings a project online. It fills in the request's Op.
func (a *Admin) Register(ctx context.Context, request schema.RegisterRequest) (response schema.RegisterResponse, err error) {
	request.Op = schema.OpRegister
	err = a.conn.call(ctx, request, &response, 0)
	return response, err
}

// Unregister takes a project offline.
func (a *Admin) Unregister(ctx context.Context, name schema.ProjectName) error {
	var response schema.OKResponse
	return a.conn.call(ctx, schema.UnregisterRequest{Op: schema.OpUnregister, Name: name}, &response, 0)
}

// Reload swaps a project's allowlist, or with DryRun says what that would do.
// It fills in the request's Op.
func (a *Admin) Reload(ctx context.Context, request schema.ReloadRequest) (response schema.ReloadResponse, err error) {
	request.Op = schema.OpReload
	err = a.conn.call(ctx, request, &response, 0)
	return response, err
}

// List returns the names of the secrets in the broker's memory, sorted.
func (a *Admin) List(ctx context.Context) ([]schema.SecretName, error) {
	var response schema.ListResponse
	err := a.conn.call(ctx, schema.ListRequest{Op: schema.OpList}, &response, 0)
	return response.Names, err
}

// Status says how the broker is.
func (a *Admin) Status(ctx context.Context) (response schema.StatusResponse, err error) {
	err = a.conn.call(ctx, schema.StatusRequest{Op: schema.OpStatus}, &response, 0)
	return response, err
}

// Ping says who is there.
func (a *Admin) Ping(ctx context.Context) (response schema.AdminPingResponse, err error) {
	err = a.conn.call(ctx, schema.PingRequest{Op: schema.OpPing}, &response, 0)
	return response, err
}

// WatchClosed returns a channel that is closed once the broker has ended the
// connection, and a function that must be called, and waits, before the
// connection is used again or closed. It is how the sidecar learns at once
// that the broker restarted empty.
func (a *Admin) WatchClosed() (ended <-chan struct{}, stop func()) {
	return wire.WatchClosed(a.conn.UnixConn)
}
