package client

import (
	"context"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// Admin is one connection to a broker's admin socket. It is not safe for concurrent use. If a
// method returns an error that is not an *Error, close the connection.
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

// Push replaces all secrets of the broker. line must be an encoded schema.PushRequest with its Op
// and a newline at the end. Push does not use line after it has returned, so the calling function
// should then wipe line.
func (a *Admin) Push(ctx context.Context, line []byte) (response schema.PushResponse, err error) {
	err = a.conn.sendLine(ctx, line, &response, 0)
	return response, err
}

// Clear removes all secrets from the broker's memory.
func (a *Admin) Clear(ctx context.Context) error {
	var response schema.OKResponse
	return a.conn.call(ctx, schema.ClearRequest{Op: schema.OpClear}, &response, 0)
}

// Register registers a project. The Op of request need not be set, because Register sets it.
func (a *Admin) Register(ctx context.Context, request schema.RegisterRequest) (response schema.RegisterResponse, err error) {
	request.Op = schema.OpRegister
	err = a.conn.call(ctx, request, &response, 0)
	return response, err
}

// Unregister removes a project from the broker.
func (a *Admin) Unregister(ctx context.Context, name schema.ProjectName) error {
	var response schema.OKResponse
	return a.conn.call(ctx, schema.UnregisterRequest{Op: schema.OpUnregister, Name: name}, &response, 0)
}

// Reload replaces a project's manifest and therefore its allowlist. If request.DryRun is true,
// the broker does not replace the manifest, and only returns the effect of the new manifest. The
// Op of request need not be set, because Reload sets it.
func (a *Admin) Reload(ctx context.Context, request schema.ReloadRequest) (response schema.ReloadResponse, err error) {
	request.Op = schema.OpReload
	err = a.conn.call(ctx, request, &response, 0)
	return response, err
}

// Inspect returns the registration of a project.
func (a *Admin) Inspect(ctx context.Context, name schema.ProjectName) (response schema.InspectResponse, err error) {
	err = a.conn.call(ctx, schema.InspectRequest{Op: schema.OpInspect, Name: name}, &response, 0)
	return response, err
}

// List returns the names of the secrets in the broker's memory, sorted.
func (a *Admin) List(ctx context.Context) ([]schema.SecretName, error) {
	var response schema.ListResponse
	err := a.conn.call(ctx, schema.ListRequest{Op: schema.OpList}, &response, 0)
	return response.Names, err
}

// Explain returns the results of the checks that decide whether a get would succeed. The Op of
// request need not be set, because Explain sets it.
func (a *Admin) Explain(ctx context.Context, request schema.ExplainRequest) (response schema.ExplainResponse, err error) {
	request.Op = schema.OpExplain
	err = a.conn.call(ctx, request, &response, 0)
	return response, err
}

// Status returns the broker's status.
func (a *Admin) Status(ctx context.Context) (response schema.StatusResponse, err error) {
	err = a.conn.call(ctx, schema.StatusRequest{Op: schema.OpStatus}, &response, 0)
	return response, err
}

// ReportStoreProblems reports to the broker how many problems the sidecar has with its
// store. It returns the broker's status.
func (a *Admin) ReportStoreProblems(ctx context.Context, count int) (response schema.StatusResponse, err error) {
	err = a.conn.call(ctx, schema.StatusRequest{Op: schema.OpStatus, StoreProblems: count}, &response, 0)
	return response, err
}

// Ping returns the broker's version and protocol version.
func (a *Admin) Ping(ctx context.Context) (response schema.AdminPingResponse, err error) {
	err = a.conn.call(ctx, schema.PingRequest{Op: schema.OpPing}, &response, 0)
	return response, err
}

// WatchClosed returns a channel that is closed when the broker ends the connection. The sidecar
// uses the channel to notice at once that the broker has restarted and lost its secrets. Always
// call stop, before any other use of the connection and before Close. stop waits until the
// connection can be used again. It also closes the channel, if the channel is still open.
func (a *Admin) WatchClosed() (ended <-chan struct{}, stop func()) {
	return wire.WatchClosed(a.conn.UnixConn)
}

// Peer returns the credentials of the process that listens on the admin socket. This is the
// broker, or the service manager that passed the socket to the broker. The pid is 0 if the
// process is in a pid namespace that this process cannot see.
func (a *Admin) Peer() (*unix.Ucred, error) { return a.conn.peer() }
