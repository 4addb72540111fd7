// Package broker is the daemon: it holds one set of secrets in locked memory,
// takes it over the admin socket, and gives each project what its manifest
// allows over a socket of the project's own.
//
// Who can connect to the admin socket is trusted with everything; whoever
// connects to a project's socket is not trusted at all. Nothing is kept on disk
// but the sockets, their directories and the audit log. Limits are those of
// package schema.
package broker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
)

// A Config says how a Server is to run. All fields are required but those that
// say otherwise.
type Config struct {
	// RuntimeDir holds the sockets. It is made where it is not there.
	RuntimeDir string
	// AdminGID owns the admin socket; -1 leaves it with the process's group.
	AdminGID int
	// Audit gets the audit events. It is closed by its opener, after the server.
	Audit *Audit
	// Log gets what an operator must know. It never holds a secret's name.
	Log *slog.Logger
	// Version is answered as broker_version.
	Version string
	// RequestRate and RefusalRate are what a project may ask and be refused, in
	// requests and names a second, with a burst of schema.RequestBurst and
	// schema.RefusalBurst times that. 0 is no limit.
	RequestRate, RefusalRate float64
	// ProjectsDir holds the declared projects. "" says that there are none.
	ProjectsDir string
	// Inherited are the descriptors that the service manager passed, each with
	// its name (sd_listen_fds_with_names(3)). None: the server makes its own.
	Inherited []*os.File
	// NotifySocket is where the service manager takes descriptors to keep
	// (sd_notify(3)). "" says that there is no service manager.
	NotifySocket string
}

// A Server is a broker from New to Shutdown or Close.
type Server struct {
	dir        *runtimeDir
	audit      *Audit
	log        *slog.Logger
	version    string
	instanceID string
	startedAt  time.Time
	memory     schema.Memory // what an arena of one page gets
	keyring    *keyring
	admin      *endpoint
	probe      *project // the broker's own, for Probe

	projectsDir              string
	requestRate, refusalRate float64
	store                    descriptorStore

	mu         sync.Mutex // taken before an endpoint's or the keyring's
	projects   map[schema.ProjectName]*project
	storeState schema.DescriptorStore
	stopping   bool
}

// New takes the runtime directory and serves: the projects that an earlier
// daemon left with the service manager first, then those that are declared. One
// that cannot be served is logged and does not keep the others from it.
// ErrRuntimeDirBusy says that another daemon has the directory.
func New(config Config) (*Server, error) {
	memory, err := secmem.Probe()
	if err != nil {
		return nil, err
	}
	in, err := inherit(config.Inherited)
	if err != nil {
		return nil, err
	}
	s, err := newServer(config, memory, in)
	if err != nil {
		in.close()
		return nil, err
	}
	return s, nil
}

func newServer(config Config, memory schema.Memory, in *inheritance) (*Server, error) {
	id := make([]byte, 16)
	rand.Read(id) // crypto/rand.Read never fails
	s := &Server{
		audit: config.Audit, log: config.Log, version: config.Version,
		instanceID: hex.EncodeToString(id), startedAt: time.Now(),
		memory: memory, keyring: newKeyring(),
		projects:    map[schema.ProjectName]*project{},
		projectsDir: config.ProjectsDir, requestRate: config.RequestRate, refusalRate: config.RefusalRate,
		store: descriptorStore{config.NotifySocket}, storeState: schema.DescriptorsAbsent,
	}
	var err error
	if s.dir, err = openRuntimeDir(config.RuntimeDir, config.AdminGID); err != nil {
		return nil, err
	}
	listener := in.admin
	if listener == nil {
		listener, err = s.dir.bindAdmin()
	}
	if err == nil {
		err = s.openProbe()
	}
	if err != nil {
		s.dir.close()
		return nil, err
	}
	s.warnMemory(memory)
	record(s.audit, schema.BrokerStarted{EventHeader: header(schema.EventStarted), ProtocolVersion: schema.ProtocolVersion})
	s.openStore()
	s.restore(in)
	s.Declare()
	s.admin = newEndpoint(listener, schema.MaxAdminConnections, s.log, s.serveAdmin)
	s.admin.kept = in.admin != nil
	s.admin.start()
	return s, nil
}

// AdminSocket is the path of the admin socket.
func (s *Server) AdminSocket() string { return s.admin.listener.Addr().String() }

// Shutdown stops in order: it removes the sockets but those that the service
// manager keeps, answers what has been asked, wipes the secrets and gives the
// runtime directory up. Connections that are busy when ctx ends are cut off.
// Only the first call does anything.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return
	}
	s.stopping = true
	endpoints := []*endpoint{s.admin, s.probe.endpoint}
	for _, p := range s.projects {
		endpoints = append(endpoints, p.endpoint)
	}
	for _, e := range endpoints {
		if !e.kept {
			os.Remove(e.listener.Addr().String())
		}
	}
	s.mu.Unlock()

	var wg sync.WaitGroup
	for _, e := range endpoints {
		wg.Go(func() { e.drain(ctx) })
	}
	wg.Wait()
	s.keyring.clear()
	record(s.audit, schema.BrokerStopped{EventHeader: header(schema.EventStopped)})
	s.dir.close()
}

// Close is Shutdown without waiting for anyone.
func (s *Server) Close() {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("the broker is closed"))
	s.Shutdown(ctx)
}

// warnMemory says that secrets could reach the swap. Their kind may change with
// each push: what one page gets, a large push may not.
func (s *Server) warnMemory(kind schema.Memory) {
	if kind == schema.MemoryUnlocked {
		s.log.Warn("secrets are in memory that could be swapped out", "fix", "raise RLIMIT_MEMLOCK: LimitMEMLOCK=64M in a unit, ulimit -l in a shell")
	}
}

// Status says how the broker is.
func (s *Server) Status() schema.StatusResponse {
	status := schema.StatusResponse{
		OK: true, BrokerVersion: s.version, ProtocolVersion: schema.ProtocolVersion,
		InstanceID: s.instanceID, UptimeSeconds: int64(time.Since(s.startedAt).Seconds()),
		Memory: s.memory, ProjectsDir: s.projectsDir, AuditDropped: s.audit.Dropped(),
		Projects: []schema.ProjectStatus{},
	}
	snap, _ := s.keyring.acquire()
	if snap != nil {
		status.Generation, status.SecretCount = snap.generation, len(snap.secrets)
		status.SecretsLoadedAt, status.Memory = &snap.loadedAt, snap.arena.Kind()
		s.keyring.release(snap)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	status.DescriptorStore = s.storeState
	for _, p := range s.projects {
		m := p.manifest.Load()
		status.Projects = append(status.Projects, schema.ProjectStatus{
			Name: p.name, ProjectPath: p.path, SocketPath: p.socketPath,
			Declared: p.registration.Declared, AllowlistSize: len(m.Allowlist()),
			Counts:         schema.Counts{Allowed: p.allowed.Load(), Denied: p.denied.Load(), NotFound: p.notFound.Load()},
			Connections:    p.endpoint.connections(),
			ManifestSHA256: m.SHA256,
		})
	}
	slices.SortFunc(status.Projects, func(a, b schema.ProjectStatus) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return status
}
