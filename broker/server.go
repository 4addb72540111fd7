// Package broker implements the broker daemon. The broker receives one set of secrets over
// the admin socket and stores the set in locked memory. Each project has its own socket,
// on which the broker serves the secrets that the project's manifest allows.
//
// The broker trusts every caller that can connect to the admin socket, and that sends the admin
// token if there is one. It does not trust any caller on a project's socket. The broker creates
// nothing on disk except sockets, their directories and links, its lock file, the token file,
// and the audit log. Package schema defines the limits of messages, connections, and rates.
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

// ErrRuntimeDirBusy means that another broker has locked the runtime directory.
var ErrRuntimeDirBusy = rundir.ErrBusy

// A Config contains the settings of a Server. A field is required, unless its comment
// describes the zero value.
type Config struct {
	// RuntimeDir is the directory for the sockets. New creates the directory if necessary.
	RuntimeDir string
	// AdminGID is the group that owns the admin socket. -1 means the group of the broker
	// process.
	AdminGID int
	// AdminTokenFile is the absolute path of the file to which New writes a new admin token. The
	// first request of each connection to the admin socket must then contain this token. ""
	// means that clients need no token.
	AdminTokenFile string
	// Audit receives the audit events. Close Audit after Shutdown or Close has returned.
	Audit *audit.Log
	// Log receives messages for the operator. These messages never contain the name of a
	// secret.
	Log *slog.Logger
	// Version is the version that the broker reports to clients as broker_version.
	Version string
	// RequestRate is the maximum number of requests per second of each project. RefusalRate is
	// the maximum number of requested names per second of each project that are denied or not
	// found. For both rates, 0 means no limit. project.Config describes the maximum bursts.
	RequestRate, RefusalRate float64
	// ProjectsDir is the directory of the declared projects. "" means that there are no
	// declared projects.
	ProjectsDir string
	// Inherited contains the file descriptors that the service manager passed to the
	// broker, with their names (sd_listen_fds_with_names(3)). If Inherited is empty, the Server
	// creates its own sockets.
	Inherited []*os.File
	// NotifySocket is the address of the service manager's socket. The Server asks the service
	// manager to store file descriptors (sd_notify(3)). "" means that there is no service manager.
	NotifySocket string
}

// A Server is a running broker. New starts the broker, and Shutdown or Close ends it.
type Server struct {
	config        Config
	dir           *rundir.Dir
	keyring       *keyring.Keyring
	registry      *registry
	admin         *admin
	adminEndpoint *endpoint.Endpoint
	adminKept     bool // whether the service manager also has the admin listener open
	probe         *probe

	stopChecking chan struct{}
	checking     sync.WaitGroup
}

// New locks the runtime directory, and serves the admin socket, the declared projects, and
// the projects that an earlier broker stored in the descriptor store. If a project cannot be
// served, New logs the error and serves the other projects. The Server then tries again
// regularly, unless the registration of the project is invalid. If another broker uses the
// runtime directory, the error wraps ErrRuntimeDirBusy.
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
	var auth *authenticator
	if err == nil && config.AdminTokenFile != "" {
		// The admin socket can already be listening, but the broker answers no request before the
		// endpoint starts. So no client can use the socket without the token.
		auth, err = newAuthenticator(config.AdminTokenFile, config.RuntimeDir, config.Audit)
	}
	var poller *endpoint.ListenerPoller
	if err == nil {
		poller, err = endpoint.NewListenerPoller()
	}
	if err != nil {
		if listener != nil && in.Admin == nil {
			listener.Close()
		}
		dir.Close()
		return nil, err
	}
	warnIfUnlocked(config.Log, memory)
	audit.Record(config.Audit, schema.BrokerStarted{EventHeader: audit.Header(schema.EventBrokerStarted), ProtocolVersion: schema.ProtocolVersion})

	instanceID := newInstanceID()
	s.registry = &registry{
		dir: dir, view: s.keyring.View(), audit: config.Audit, log: config.Log, poller: poller,
		requestRate: config.RequestRate, refusalRate: config.RefusalRate,
		brokerVersion: config.Version, instanceID: instanceID,
		entries: map[schema.ProjectName]*entry{}, unserved: map[schema.ProjectName]*unservedProject{},
		index: newProjectIndex(),
		store: newRestartStore(config.NotifySocket, config.Log),
	}
	// The admin endpoint starts before the broker serves the projects, because a container can
	// delay the start of its project. Until the broker has tried to serve and to store all
	// projects, changing stays locked, so requests that change projects wait.
	s.registry.changing.Lock()
	restoreProjects(s.registry, in)
	s.admin = &admin{
		exclusive: exclusivePushes{refused: map[*endpoint.Session]bool{}, storeProblems: map[*endpoint.Session]int{}},
		keyring:   s.keyring, registry: s.registry, audit: config.Audit, log: config.Log, auth: auth,
		events:        eventStreams{log: config.Audit, instanceID: instanceID},
		brokerVersion: config.Version, instanceID: instanceID, startedAt: time.Now(),
		memory: memory, projectsDir: config.ProjectsDir,
	}
	s.adminEndpoint = endpoint.New(endpoint.Config{
		Listener: listener, MaxConnections: schema.MaxAdminConnections, MaxUnauthorized: auth.maxUnauthorized(), Serve: s.admin.serve, Log: config.Log,
	})
	s.admin.connections = s.adminEndpoint.Connections
	s.adminEndpoint.Start()
	applyDeclarations(s.registry, config.ProjectsDir) // before serveProjects, because a declaration can revoke access
	serveProjects(s.registry, in.Listeners)
	s.stopChecking = make(chan struct{})
	s.checking.Go(func() { // Shutdown ends this goroutine
		// The projects are already served, so New need not wait until they are stored.
		storeProjects(s.registry)
		s.registry.changing.Unlock()
		checkProjects(s.registry, s.stopChecking)
	})
	return s, nil
}

// newInstanceID returns a random number in hexadecimal. Each Server has a different number, so
// clients can notice that the broker has restarted.
func newInstanceID() string {
	id := make([]byte, 16)
	rand.Read(id) // crypto/rand.Read never fails
	return hex.EncodeToString(id)
}

// AdminSocket returns the path of the admin socket.
func (s *Server) AdminSocket() string { return s.adminEndpoint.SocketPath() }

// Status returns the broker's status.
func (s *Server) Status() schema.StatusResponse { return s.admin.status() }

// Summary returns the number of served projects, and information about the current secrets. Unlike
// Status, it reads no declarations and allocates no memory for each project.
func (s *Server) Summary() (projects int, secrets keyring.Info) {
	return s.registry.count(), s.keyring.Info()
}

// ApplyDeclarations reads the directory of declared projects again. It adds new projects,
// changes projects whose declarations have changed, and removes projects that are no
// longer declared. If a declaration is not valid, its project does not change. If the directory
// cannot be read, no project changes. ApplyDeclarations logs and returns these errors.
func (s *Server) ApplyDeclarations() error {
	s.registry.changing.Lock()
	defer s.registry.changing.Unlock()
	if err := applyDeclarations(s.registry, s.config.ProjectsDir); err != nil {
		return err
	}
	serveProjects(s.registry, nil)
	storeProjects(s.registry)
	return declarationErrors(s.registry)
}

// Probe checks whether the broker still answers requests. It sends a get request to an internal
// project, and returns an error if the answer is wrong or does not arrive before ctx ends.
func (s *Server) Probe(ctx context.Context) error { return s.probe.check(ctx) }

// Shutdown answers the requests that clients have already sent, except requests that wait for a
// secret. It then wipes the secrets, and unlocks the runtime directory. When ctx ends, Shutdown
// closes the connections that are still busy. Only the first call has an effect.
//
// Shutdown does not remove the socket files. The next broker uses or replaces them. If
// Shutdown removed the socket files, a container could fill their space in the file
// system, and the next broker could not start.
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
	s.registry.poller.Close()
	s.keyring.Clear()
	audit.Record(s.config.Audit, schema.BrokerStopped{EventHeader: audit.Header(schema.EventBrokerStopped)})
	// Remove the token file before dir.Close unlocks the runtime directory, because the next
	// broker can start and create its token file as soon as the directory is unlocked.
	s.admin.auth.close()
	s.dir.Close()
}

// Close does the same as Shutdown, but ends the connections of clients without waiting.
func (s *Server) Close() {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("the broker is closed"))
	s.Shutdown(ctx)
}
