package broker

import (
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// A project is a registered project: what its socket serves, and to whom. Its
// dispatcher knows the project ops and nothing of the admin's.
type project struct {
	server     *Server
	name       schema.ProjectName
	path       string // the project's directory
	socketPath string
	uids       []uint32 // may connect
	endpoint   *endpoint
	rates      *rates
	unrecorded bool // the broker's own: neither counted nor recorded

	registration registration // guarded by the server's mu
	sequence     uint64       // of the registration in the descriptor store; guarded by the server's mu

	manifest atomic.Pointer[manifest.Manifest] // what was approved

	allowed, denied, notFound atomic.Uint64 // secrets asked for
}

// serve runs one connection.
func (p *project) serve(s *session) {
	if !s.caller.known() || !slices.Contains(p.uids, s.caller.uid) {
		// Not each: who may not come in could fill the audit log by trying.
		p.rates.strangers.Do(func() {
			record(p.server.audit, schema.PeerRefused{
				EventHeader: header(schema.EventPeerRefused), EventCaller: s.caller.event(), Project: p.name,
			})
		})
		s.write(refuse(schema.CodePeerUnexpected, "uid %d may not use the socket of project %s: register it with allow_uids", s.caller.uid, p.name))
		return
	}
	s.lines = wire.NewReader(s.conn, schema.MaxRequest, nil)
	s.run(func(line []byte) reply { return p.dispatch(s, line) })
}

func (p *project) dispatch(s *session, line []byte) reply {
	if line == nil {
		return tooLong(schema.MaxRequest)
	}
	if seconds, is := over(p.rates.requests, 1); is {
		return p.limited(s, seconds, "requests")
	}
	var request schema.Request
	if err := wire.Decode(line, &request, schema.MaxDepth); err != nil {
		return malformed("request", err)
	}
	switch request.Op {
	case schema.OpGet:
		return p.get(s, line)
	case schema.OpGetMany:
		return p.getMany(s, line)
	case schema.OpWatch:
		return p.watch(s)
	case schema.OpInfo:
		m := p.manifest.Load()
		return answer(schema.InfoResponse{
			OK: true, Project: p.name, Allowlist: m.Allowlist(), SchemaVersion: schema.ManifestVersion,
			Secrets: m.Secrets, Helpers: m.Helpers,
		})
	case schema.OpPing:
		return answer(schema.ProjectPingResponse{
			OK: true, BrokerVersion: p.server.version, ProtocolVersion: schema.ProtocolVersion,
			InstanceID: p.server.instanceID, Project: p.name,
		})
	}
	return unknownOp("project", schema.ProjectOperations)
}

func (p *project) get(s *session, line []byte) reply {
	var request schema.GetRequest
	if err := wire.Decode(line, &request, schema.MaxDepth); err != nil {
		return malformed("get", err)
	}
	if !schema.ValidSecretName(request.Name) {
		return refuse(schema.CodeProtocolError, "get: name must match %s", schema.SecretNamePattern)
	}
	if !validWait(request.WaitMS) {
		return badWait("get")
	}
	found, ok := p.await(s, []schema.SecretName{request.Name}, request.WaitMS)
	if !ok {
		return hangUp
	}
	if r, is := p.tooMany(s, found); is {
		return r
	}
	if !p.count(s, found) {
		return p.unrecordable("get", found)
	}
	one := found.each[0]
	if one.code != "" {
		p.server.keyring.release(found.snapshot)
		return refuse(one.code, "get: %s", one.message())
	}
	parts := net.Buffers{[]byte(`{"ok":true,`)}
	parts = append(parts, one.parts(found.snapshot)...)
	return p.secretReply(append(parts, []byte("}\n")), found)
}

func (p *project) getMany(s *session, line []byte) reply {
	var request schema.GetManyRequest
	if err := wire.Decode(line, &request, schema.MaxDepth); err != nil {
		return malformed("get-many", err)
	}
	seen := make(map[schema.SecretName]bool, len(request.Names))
	for _, name := range request.Names {
		if !schema.ValidSecretName(name) {
			return refuse(schema.CodeProtocolError, "get-many: each of names must match %s", schema.SecretNamePattern)
		}
		if seen[name] {
			return refuse(schema.CodeProtocolError, "get-many: %s stands twice in names", name)
		}
		seen[name] = true
	}
	if !validWait(request.WaitMS) {
		return badWait("get-many")
	}
	found, ok := p.await(s, request.Names, request.WaitMS)
	if !ok {
		return hangUp
	}
	if r, is := p.tooMany(s, found); is {
		return r
	}
	if !p.count(s, found) {
		return p.unrecordable("get-many", found)
	}
	return p.secretReply(manyParts(found), found)
}

// secretReply keeps the snapshot until its bytes are written.
func (p *project) secretReply(parts net.Buffers, found lookup) reply {
	return reply{parts: parts, done: func() { p.server.keyring.release(found.snapshot) }}
}

func validWait(ms int64) bool { return 0 <= ms && ms <= schema.MaxWait.Milliseconds() }

func badWait(op string) reply {
	return refuse(schema.CodeProtocolError, "%s: wait_ms must be between 0 and %d", op, schema.MaxWait.Milliseconds())
}

// await looks names up, nil meaning the whole allowlist, and where an allowed
// one is missing waits up to ms milliseconds for a push that brings it. The
// allowlist is read anew each time, so a reload takes effect on those who wait.
// The lookup's snapshot must be released. It is not ok when the client has
// gone or the broker stops meanwhile: there is nobody to answer, or a broker
// after this one will.
func (p *project) await(s *session, names []schema.SecretName, ms int64) (lookup, bool) {
	timeout := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer timeout.Stop()
	var gone <-chan struct{}
	waiting := ms > 0
	for {
		snap, moved := p.server.keyring.acquire()
		found := p.lookup(snap, names)
		if found.complete() || !waiting {
			return found, true
		}
		p.server.keyring.release(snap)
		if gone == nil {
			var stop func()
			gone, stop = wire.WatchClosed(s.conn)
			defer stop()
		}
		select {
		case <-moved:
		case <-timeout.C:
			waiting = false
		case <-gone:
			return lookup{}, false
		case <-p.endpoint.draining:
			return lookup{}, false
		}
	}
}

// unrecordable refuses what was found, because nobody would ever know of it.
func (p *project) unrecordable(op string, found lookup) reply {
	p.server.keyring.release(found.snapshot)
	return refuse(schema.CodeAuditUnavailable, "%s: it cannot be recorded, and this broker answers only what is (--audit-required)", op)
}

// count adds an answer to the project's counts and to the audit log. It reports
// false where the answer must not be given, because it could not be recorded.
func (p *project) count(s *session, found lookup) bool {
	if p.unrecorded {
		return true
	}
	event := schema.SecretsFetched{EventHeader: header(schema.EventFetched), EventCaller: s.caller.event(), Project: p.name}
	for _, one := range found.each {
		switch one.code {
		case "":
			event.Allowed++
		case schema.CodeDenied:
			event.Denied++
		default:
			event.NotFound++
		}
	}
	if !recordAnswer(p.server.audit, event) {
		return false
	}
	p.allowed.Add(uint64(event.Allowed))
	p.denied.Add(uint64(event.Denied))
	p.notFound.Add(uint64(event.NotFound))
	return true
}
