// Package broker is the daemon. It holds one set of secrets in locked memory,
// receives it over the admin socket, and serves each project the secrets that its
// manifest allows, over a socket of the project's own.
//
// A caller that can connect to the admin socket is trusted with everything. A
// caller of a project's socket is not trusted at all. The broker creates nothing on
// disk except sockets, their directories and links, and the audit log. Limits are
// those of package schema.
package broker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/fdstore"
	"github.com/keyhatch/keyhatch/broker/keyring"
	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
)

// ErrRuntimeDirBusy means that another broker holds the lock of the runtime
// directory.
var ErrRuntimeDirBusy = rundir.ErrBusy

// A Config describes a Server. All fields are required, unless their comment
// describes the zero value.
type Config struct {
	// RuntimeDir is the directory for the sockets. It is created if necessary.
	RuntimeDir string
	// AdminGID is the group that owns the admin socket. With -1, the socket keeps
	// the group of the process.
	AdminGID int
	// Audit receives the audit events. The caller closes it, after the server.
	Audit *audit.Log
	// Log receives messages for the operator. They never contain the name of a
	// secret.
	Log *slog.Logger
	// Version is reported as broker_version.
	Version string
	// RequestRate and RefusalRate limit each project, in requests and in refused
	// names per second. The bursts are schema.RequestBurstFactor and schema.RefusalBurstFactor
	// seconds long. 0 means no limit.
	RequestRate, RefusalRate float64
	// ProjectsDir contains the declared projects. "" means that there are none.
	ProjectsDir string
	// Inherited are the descriptors that the service manager passed, with their
	// names (sd_listen_fds_with_names(3)). If there are none, the server binds its
	// own sockets.
	Inherited []*os.File
	// NotifySocket is the address of the service manager, which stores descriptors
	// (sd_notify(3)). "" means that there is no service manager.
	NotifySocket string
}

// A Server is a running broker, from New to Shutdown or Close.
type Server struct {
	config        Config
	dir           *rundir.Dir
	keyring       *keyring.Keyring
	registry      *registry
	admin         *admin
	adminEndpoint *endpoint.Endpoint
	adminKept     bool // the service manager holds the admin listener
	probe         *probe

	stopChecking chan struct{}
	checking     sync.WaitGroup
}

// New locks the runtime directory and serves: first the projects that an earlier
// broker left in the descriptor store, then the declared ones. A project that
// cannot be served is logged and does not affect the others. The error is
// ErrRuntimeDirBusy if another broker has the directory.
func New(config Config) (*Server, error) {
	memory, err := secmem.Probe()
	if err != nil {
		return nil, err
	}
	in, err := fdstore.Inherit(config.Inherited)
	if err != nil {
		return nil, err
	}
	s, err := newServer(config, memory, in)
	if err != nil {
		in.Close()
		return nil, err
	}
	return s, nil
}

func newServer(config Config, memory schema.Memory, in *fdstore.Inherited) (*Server, error) {
	dir, err := rundir.Open(config.RuntimeDir, config.AdminGID)
	if err != nil {
		return nil, err
	}
	s := &Server{config: config, dir: dir, keyring: keyring.New(), adminKept: in.Admin != nil}
	listener := in.Admin
	if listener == nil {
		listener, err = dir.BindAdmin()
	}
	if err == nil {
		s.probe, err = newProbe(s.keyring.View())
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	warnIfUnlocked(config.Log, memory)
	audit.Record(config.Audit, schema.BrokerStarted{EventHeader: audit.Header(schema.EventBrokerStarted), ProtocolVersion: schema.ProtocolVersion})

	instanceID := newInstanceID()
	s.registry = &registry{
		dir: dir, view: s.keyring.View(), audit: config.Audit, log: config.Log,
		requestRate: config.RequestRate, refusalRate: config.RefusalRate,
		brokerVersion: config.Version, instanceID: instanceID,
		entries: map[schema.ProjectName]*entry{}, rejected: map[schema.ProjectName]rejectedProject{},
		store: newRestartStore(config.NotifySocket, config.Log),
	}
	restoreProjects(s.registry, in)
	s.ApplyDeclarations()
	s.admin = &admin{
		keyring: s.keyring, registry: s.registry, audit: config.Audit, log: config.Log,
		brokerVersion: config.Version, instanceID: instanceID, startedAt: time.Now(),
		memory: memory, projectsDir: config.ProjectsDir,
	}
	s.adminEndpoint = endpoint.New(endpoint.Config{
		Listener: listener, MaxConnections: schema.MaxAdminConnections, Serve: s.admin.serve, Log: config.Log,
	})
	s.adminEndpoint.Start()
	s.stopChecking = make(chan struct{})
	s.checking.Go(func() { checkProjects(s.registry, s.stopChecking) }) // ended by Shutdown
	return s, nil
}

// newInstanceID returns a random number in hex. Clients notice a restart by it.
func newInstanceID() string {
	id := make([]byte, 16)
	rand.Read(id) // crypto/rand.Read never fails
	return hex.EncodeToString(id)
}

// AdminSocket returns the path of the admin socket.
func (s *Server) AdminSocket() string { return s.adminEndpoint.SocketPath() }

// Status returns the broker's status.
func (s *Server) Status() schema.StatusResponse { return s.admin.status() }

// ApplyDeclarations reads the directory of declared projects again. It adds new
// projects, replaces changed manifests, and removes projects that are no longer
// declared. If a file has an error, its project stays as it is. Such errors are logged
// and returned.
func (s *Server) ApplyDeclarations() error {
	return applyDeclarations(s.registry, s.config.ProjectsDir)
}

// Probe sends a get to the broker, as a client would. An error means that the
// broker no longer works.
func (s *Server) Probe(ctx context.Context) error { return s.probe.check(ctx) }

// Shutdown answers the requests that clients have already sent, wipes the secrets, and
// releases the runtime directory. Connections that are still busy when ctx ends are
// closed. Only the first call has an effect.
//
// The socket files stay, and the next broker replaces them. If Shutdown removed them, a
// container that fills the file system could take their space, and keep the next broker
// from starting.
func (s *Server) Shutdown(ctx context.Context) {
	entries, ok := s.registry.stop()
	if !ok {
		return
	}
	close(s.stopChecking)
	s.checking.Wait()
	keepListener := map[*endpoint.Endpoint]bool{s.adminEndpoint: s.adminKept}
	for _, e := range entries {
		keepListener[e.endpoint] = e.stored.listener
	}
	var wg sync.WaitGroup
	for e, keep := range keepListener {
		wg.Go(func() { e.Drain(ctx, keep) })
	}
	wg.Wait()
	s.registry.closing.Wait()
	s.keyring.Clear()
	audit.Record(s.config.Audit, schema.BrokerStopped{EventHeader: audit.Header(schema.EventBrokerStopped)})
	s.dir.Close()
}

// Close is Shutdown without waiting for clients.
func (s *Server) Close() {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("the broker is closed"))
	s.Shutdown(ctx)
}
