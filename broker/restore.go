package broker

import (
	"errors"
	"fmt"
	"os"

	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// openStore sees whether there is a descriptor store that takes anything.
func (s *Server) openStore() {
	if s.store.address == "" {
		s.log.Info("no service manager keeps the sockets: a restart loses what was registered and not declared")
		return
	}
	s.storeState = schema.DescriptorsKept
	if err := s.store.took(); err != nil {
		s.refused(err)
	}
}

// refused notes that the store did not take something. What is served goes on.
// The caller holds mu, or is the only one to know s.
func (s *Server) refused(err error) {
	s.storeState = schema.DescriptorsRefused
	s.log.Warn("a restart will lose what is registered", "error", err)
}

// keep puts a project's listener and its registration into the store, the
// registration under its next number. Where one of them is not taken neither is
// left there: an older registration would bring an older manifest back. The
// caller holds mu.
func (s *Server) keep(p *project) {
	if s.storeState == schema.DescriptorsAbsent {
		return
	}
	old := p.sequence
	p.sequence++
	if err := s.put(p); err != nil {
		s.refused(err)
		s.forget(p)
		return
	}
	p.endpoint.kept = true
	if old > 0 {
		s.discard(registrationName(p.name, old))
	}
}

func (s *Server) put(p *project) error {
	sealed, err := p.registration.seal()
	if err != nil {
		return err
	}
	defer sealed.Close()
	if !p.endpoint.kept {
		raw, err := p.endpoint.listener.SyscallConn()
		if err != nil {
			return err
		}
		// The listener's own descriptor: a copy by File would have other flags.
		if controlErr := raw.Control(func(fd uintptr) { err = s.store.put(listenerName(p.name), int(fd)) }); controlErr != nil {
			return controlErr
		}
		if err != nil {
			return err
		}
	}
	if err := s.store.put(registrationName(p.name, p.sequence), int(sealed.Fd())); err != nil {
		return err
	}
	return s.store.took()
}

// forget takes a project out of the store. The caller holds mu.
func (s *Server) forget(p *project) {
	if s.storeState == schema.DescriptorsAbsent || p.sequence == 0 {
		return
	}
	p.endpoint.kept = false
	s.discard(listenerName(p.name))
	s.discard(registrationName(p.name, p.sequence))
	if p.sequence > 1 { // of a keep that failed
		s.discard(registrationName(p.name, p.sequence-1))
	}
	p.sequence = 0
}

func (s *Server) discard(name string) {
	if err := s.store.remove(name); err != nil {
		s.log.Warn("the service manager keeps something that is of no use any more", "name", name, "error", err)
	}
}

// restore serves what an earlier daemon left in the store.
func (s *Server) restore(in *inheritance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range in.useless {
		s.log.Warn("of no use, from the service manager's store", "name", name)
		s.discard(name)
	}
	for name, r := range in.registrations {
		if err := s.revive(in, r); err != nil {
			s.log.Error("a project cannot be served again", "project", name, "error", err)
			s.discard(registrationName(name, r.sequence))
		}
	}
	for name, listener := range in.listeners {
		if s.projects[name] == nil {
			s.discard(listenerName(name))
			listener.Close()
		}
	}
}

// revive serves one project, on the listener that it had.
func (s *Server) revive(in *inheritance, r inheritedRegistration) error {
	if err := r.check(); err != nil {
		return err
	}
	parsed, err := manifest.Parse([]byte(*r.Manifest), r.Name)
	if err != nil {
		return err
	}
	listener, path := in.listeners[r.Name], s.dir.projectSocket(r.Name)
	if listener != nil {
		if _, err := os.Lstat(path); err != nil || listener.Addr().String() != path {
			s.log.Warn("a project's socket is gone from its place and is made anew", "project", r.Name)
			delete(in.listeners, r.Name)
			s.discard(listenerName(r.Name))
			listener.Close()
			listener = nil
		}
	}
	made := listener == nil
	if made {
		if listener, err = s.dir.bindProject(r.Name); err != nil {
			return err
		}
	}
	p, err := s.publish(r.registration, parsed, listener)
	if err != nil {
		if made {
			listener.Close()
		}
		return err
	}
	p.sequence, p.endpoint.kept = r.sequence, !made
	if made {
		s.keep(p)
	}
	p.endpoint.start()
	return nil
}

// Declare reads the projects directory: it serves what is declared and was not,
// puts changed manifests in force, and takes offline what was declared and is no
// more. What is wrong with a file is logged and returned, and changes nothing of
// its project.
func (s *Server) Declare() error {
	if s.projectsDir == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return nil
	}
	declared, wrong, err := manifest.ReadDeclarations(s.projectsDir)
	if err != nil {
		s.log.Error("the declared projects cannot be read; what is served stays as it is", "error", err)
		return err
	}
	var problems []error
	for name, d := range declared {
		if err := s.declare(d); err != nil {
			wrong[name] = err
		}
	}
	for name, err := range wrong {
		s.log.Error("a declared project cannot be taken", "file", name+".yaml", "error", err)
		problems = append(problems, fmt.Errorf("%s.yaml: %w", name, err))
	}
	for name, p := range s.projects {
		if _, there := declared[string(name)]; p.registration.Declared && !there && wrong[string(name)] == nil {
			s.log.Info("a project is no longer declared", "project", name)
			s.drop(p, ourselves())
		}
	}
	return errors.Join(problems...)
}

// declare serves one declared project as its file says. The caller holds mu.
func (s *Server) declare(d manifest.Declaration) error {
	r := registration{
		Op: schema.OpRegister, Name: d.Name, ProjectPath: d.Path, Manifest: &d.Manifest,
		AllowUIDs: d.AllowUIDs, DevcontainerIDs: d.DevcontainerIDs, Declared: true,
	}
	if err := r.check(); err != nil {
		return err
	}
	parsed, err := manifest.Parse([]byte(d.Manifest), d.Name)
	if err != nil {
		return err
	}
	p := s.projects[d.Name]
	if p != nil && !p.registration.samePlace(r) {
		s.drop(p, ourselves())
		p = nil
	}
	if p == nil {
		_, err := s.bring(r, parsed, ourselves())
		return err
	}
	was := p.registration
	p.registration.Declared = true
	switch {
	case *was.Manifest != d.Manifest:
		s.swap(p, parsed, d.Manifest, ourselves())
	case !was.Declared:
		s.keep(p)
	}
	return nil
}
