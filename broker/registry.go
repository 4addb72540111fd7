package broker

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"syscall"

	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// register parses, then binds, then publishes: an error anywhere changes
// nothing.
func (a *adminSession) register(request schema.RegisterRequest) (schema.RegisterResponse, error) {
	s := a.server
	r := registration(request)
	if err := r.check(); err != nil {
		return schema.RegisterResponse{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return schema.RegisterResponse{}, refusal(schema.CodeInternalError, "the broker is stopping")
	}
	if p, there := s.projects[r.Name]; there {
		if r.Declared && r.Manifest != nil && *r.Manifest == *p.registration.Manifest && r.samePlace(p.registration) {
			p.registration.Declared = true
			s.keep(p)
			return schema.RegisterResponse{OK: true, SocketPath: p.socketPath}, nil
		}
		return schema.RegisterResponse{}, refusal(schema.CodeProjectExists, "%s is registered already: reload takes a changed manifest", r.Name)
	}
	parsed, text, err := a.approve(r.Name, r.ProjectPath, r.Manifest)
	if err != nil {
		return schema.RegisterResponse{}, err
	}
	r.Manifest = &text
	p, err := s.bring(r, parsed, a.caller)
	if err != nil {
		return schema.RegisterResponse{}, err
	}
	return schema.RegisterResponse{OK: true, SocketPath: p.socketPath}, nil
}

// bring binds, publishes and serves a project that was not there. The caller
// holds mu.
func (s *Server) bring(r registration, parsed *manifest.Manifest, by caller) (*project, error) {
	listener, err := s.dir.bindProject(r.Name)
	if err != nil {
		return nil, err
	}
	p, err := s.publish(r, parsed, listener)
	if err != nil {
		os.Remove(listener.Addr().String())
		listener.Close()
		return nil, err
	}
	s.keep(p)
	p.endpoint.start()
	record(s.audit, schema.ProjectRegistered{
		EventHeader: header(schema.EventProjectRegistered), EventCaller: by.event(),
		Project: p.name, AllowlistSize: len(parsed.Allowlist()),
	})
	return p, nil
}

// publish makes a project that listens; its endpoint must be started. The
// caller holds mu.
func (s *Server) publish(r registration, parsed *manifest.Manifest, listener *net.UnixListener) (*project, error) {
	if err := s.dir.link(r.Name, r.DevcontainerIDs); err != nil {
		return nil, err
	}
	p := &project{
		server: s, name: r.Name, path: r.ProjectPath,
		socketPath:   s.dir.projectSocket(r.Name),
		uids:         allowedUIDs(r.ProjectPath, r.AllowUIDs),
		rates:        newRates(s.requestRate, s.refusalRate),
		registration: r,
	}
	p.manifest.Store(parsed)
	p.endpoint = newEndpoint(listener, schema.MaxProjectConnections, s.log, p.serve)
	s.projects[p.name] = p
	return p, nil
}

// unregister ends the project's connections and removes its socket, but keeps
// its directory: a container that has it mounted works again when the project
// is registered again.
func (a *adminSession) unregister(request schema.UnregisterRequest) (schema.OKResponse, error) {
	s := a.server
	if err := checkProject(request.Name); err != nil {
		return schema.OKResponse{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.project(request.Name)
	if err != nil {
		return schema.OKResponse{}, err
	}
	s.drop(p, a.caller)
	return schema.OKResponse{OK: true}, nil
}

// drop is unregister. The caller holds mu.
func (s *Server) drop(p *project, by caller) {
	delete(s.projects, p.name)
	s.forget(p)
	s.dir.unlink(p.name, p.registration.DevcontainerIDs)
	os.Remove(p.socketPath)
	p.endpoint.close()
	record(s.audit, schema.ProjectUnregistered{
		EventHeader: header(schema.EventProjectUnregistered), EventCaller: by.event(), Project: p.name,
	})
}

// reload swaps the allowlist under the project's open connections.
func (a *adminSession) reload(request schema.ReloadRequest) (schema.ReloadResponse, error) {
	s := a.server
	if err := checkProject(request.Name); err != nil {
		return schema.ReloadResponse{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.project(request.Name)
	if err != nil {
		return schema.ReloadResponse{}, err
	}
	parsed, text, err := a.approve(p.name, p.path, request.Manifest)
	if err != nil {
		return schema.ReloadResponse{}, err
	}
	before, after := p.manifest.Load().Allowlist(), parsed.Allowlist()
	response := schema.ReloadResponse{OK: true, Allowlist: after, Added: without(after, before), Removed: without(before, after)}
	if request.DryRun {
		return response, nil
	}
	s.swap(p, parsed, text, a.caller)
	return response, nil
}

// swap puts another manifest in force. The caller holds mu.
func (s *Server) swap(p *project, parsed *manifest.Manifest, text string, by caller) {
	before, after := p.manifest.Load().Allowlist(), parsed.Allowlist()
	p.registration.Manifest = &text
	p.manifest.Store(parsed)
	s.keyring.wake() // those who wait or watch
	s.keep(p)
	record(s.audit, schema.ProjectReloaded{
		EventHeader: header(schema.EventProjectReloaded), EventCaller: by.event(),
		Project: p.name, Added: len(without(after, before)), Removed: len(without(before, after)),
	})
}

// approve parses the text of a manifest, or of the project's file where there
// is none.
func (a *adminSession) approve(name schema.ProjectName, path string, text *string) (*manifest.Manifest, string, error) {
	var parsed *manifest.Manifest
	var raw []byte
	var err error
	if text != nil {
		raw = []byte(*text)
	} else {
		raw, _, err = manifest.Read(path)
	}
	if err == nil {
		parsed, err = manifest.Parse(raw, name)
	}
	if err == nil {
		return parsed, string(raw), nil
	}
	code := schema.CodeManifestInvalid
	if errors.Is(err, manifest.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		code = schema.CodeManifestNotFound
	}
	record(a.server.audit, schema.ManifestRejected{
		EventHeader: header(schema.EventManifestRejected), EventCaller: a.caller.event(), Project: name, Code: code,
	})
	return nil, "", refusal(code, "%v", err)
}

// project finds a registered project, unless the broker stops: what changes now
// would no longer reach the next one. The caller holds mu.
func (s *Server) project(name schema.ProjectName) (*project, error) {
	if s.stopping {
		return nil, refusal(schema.CodeInternalError, "the broker is stopping")
	}
	if p := s.projects[name]; p != nil {
		return p, nil
	}
	return nil, refusal(schema.CodeProjectUnknown, "%s is not registered", name)
}

func checkProject(name schema.ProjectName) error {
	if schema.ValidProjectName(name) {
		return nil
	}
	return refusal(schema.CodeProtocolError, "name must match %s", schema.ProjectNamePattern)
}

// allowedUIDs are those who may use a project's socket: root, the broker's own
// uid, the owner of the directory where the broker may look at it, and extra.
func allowedUIDs(path string, extra []uint32) []uint32 {
	uids := append([]uint32{0, uint32(os.Geteuid())}, extra...)
	if info, err := os.Stat(path); err == nil {
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != unknownUID {
			uids = append(uids, owner)
		}
	}
	slices.Sort(uids)
	return slices.Compact(uids)
}

// without returns what is in list and not in other, in list's order.
func without(list, other []schema.SecretName) []schema.SecretName {
	rest := []schema.SecretName{}
	for _, name := range list {
		if !slices.Contains(other, name) {
			rest = append(rest, name)
		}
	}
	return rest
}
