package broker

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// register parses, then binds, then publishes: an error anywhere changes
// nothing.
func (a *adminSession) register(request schema.RegisterRequest) (schema.RegisterResponse, error) {
	s := a.server
	if err := checkProject(request.Name); err != nil {
		return schema.RegisterResponse{}, err
	}
	path := request.ProjectPath
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return schema.RegisterResponse{}, refusal(schema.CodeProtocolError, "project_path must be absolute and clean: no ., no .., no double or trailing slash")
	}
	if filepath.Base(path) != string(request.Name) {
		return schema.RegisterResponse{}, refusal(schema.CodeProtocolError, "name must be the base name of project_path")
	}
	if slices.Contains(request.AllowUIDs, unknownUID) {
		return schema.RegisterResponse{}, refusal(schema.CodeProtocolError, "allow_uids must not hold %d: every unknown caller has that uid", unknownUID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return schema.RegisterResponse{}, refusal(schema.CodeInternalError, "the broker is stopping")
	}
	if _, there := s.projects[request.Name]; there {
		return schema.RegisterResponse{}, refusal(schema.CodeProjectExists, "%s is registered already: reload takes a changed manifest", request.Name)
	}
	parsed, err := a.approve(request.Name, path, request.Manifest)
	if err != nil {
		return schema.RegisterResponse{}, err
	}
	listener, err := s.dir.bindProject(request.Name)
	if err != nil {
		return schema.RegisterResponse{}, err
	}
	p := &project{
		server: s, name: request.Name, path: path,
		socketPath: s.dir.projectSocket(request.Name),
		uids:       allowedUIDs(path, request.AllowUIDs),
	}
	p.manifest.Store(parsed)
	p.endpoint = newEndpoint(listener, schema.MaxProjectConnections, s.log, p.serve)
	s.projects[p.name] = p
	p.endpoint.start()
	record(s.audit, schema.ProjectRegistered{
		EventHeader: header(schema.EventProjectRegistered), EventCaller: a.caller.event(),
		Project: p.name, AllowlistSize: len(parsed.Allowlist()),
	})
	return schema.RegisterResponse{OK: true, SocketPath: p.socketPath}, nil
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
	delete(s.projects, p.name)
	os.Remove(p.socketPath)
	p.endpoint.close()
	record(s.audit, schema.ProjectUnregistered{
		EventHeader: header(schema.EventProjectUnregistered), EventCaller: a.caller.event(), Project: p.name,
	})
	return schema.OKResponse{OK: true}, nil
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
	parsed, err := a.approve(p.name, p.path, request.Manifest)
	if err != nil {
		return schema.ReloadResponse{}, err
	}
	before, after := p.manifest.Load().Allowlist(), parsed.Allowlist()
	response := schema.ReloadResponse{OK: true, Allowlist: after, Added: without(after, before), Removed: without(before, after)}
	if request.DryRun {
		return response, nil
	}
	p.manifest.Store(parsed)
	s.keyring.wake() // for those who wait or watch
	record(s.audit, schema.ProjectReloaded{
		EventHeader: header(schema.EventProjectReloaded), EventCaller: a.caller.event(),
		Project: p.name, Added: len(response.Added), Removed: len(response.Removed),
	})
	return response, nil
}

// approve parses the text of a manifest, or of the project's file where there
// is none.
func (a *adminSession) approve(name schema.ProjectName, path string, text *string) (*manifest.Manifest, error) {
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
		return parsed, nil
	}
	code := schema.CodeManifestInvalid
	if errors.Is(err, manifest.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		code = schema.CodeManifestNotFound
	}
	record(a.server.audit, schema.ManifestRejected{
		EventHeader: header(schema.EventManifestRejected), EventCaller: a.caller.event(), Project: name, Code: code,
	})
	return nil, refusal(code, "%v", err)
}

// project finds a registered project. The caller holds mu.
func (s *Server) project(name schema.ProjectName) (*project, error) {
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
