// Package project answers the requests on one project's socket. It checks the caller and
// the allowlist.
//
// The package trusts no caller. It cannot change the secrets or other projects, because
// it has only a read-only view of the keyring and no access to admin operations.
package project

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/keyring"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/time/rate"
)

// A Config is the configuration of a Project.
type Config struct {
	Name     schema.ProjectName
	UIDs     []uint32           // uids that may use the project's socket; the project refuses all others
	Manifest *manifest.Manifest // the approved manifest
	View     keyring.View       // provides the secrets
	// Audit is the log in which the project records its answers to get and get-many, and some of
	// the refused callers and exceeded rate limits. If Audit is nil, the project records nothing,
	// and Counts always returns zeros. The broker's own health check uses a project without Audit.
	Audit *audit.Log
	// RequestRate is the maximum number of requests per second. RefusalRate is the maximum
	// number of requested names per second that are denied or not found. For both rates, 0 means
	// no limit. The maximum burst of requests is RequestRate, rounded up, multiplied by
	// schema.RequestBurstFactor. The maximum burst of names that are denied or not found is
	// RefusalRate, rounded up, multiplied by schema.RefusalBurstFactor.
	RequestRate, RefusalRate float64
	// BrokerVersion and InstanceID are part of the response to a ping.
	BrokerVersion, InstanceID string
}

// A Project answers the requests on one project's socket. Several goroutines may call its
// methods at the same time.
type Project struct {
	config   Config
	audit    *audit.ProjectLog // nil if requests are not recorded
	secrets  allowedSecrets
	requests *endpoint.Limiter
	refusals *endpoint.Limiter // limits names that are denied or not found

	// rateLimitEvents and refusedUIDEvents limit the number of audit events about refused
	// requests. Otherwise, a caller whose requests are refused could fill the audit log.
	rateLimitEvents  rate.Sometimes
	refusedUIDEvents rate.Sometimes

	counts [numOutcomes]atomic.Uint64 // number of requested names for each outcome
	ended  atomic.Bool                // true after End
}

// New returns a project. Every field of config is required, unless the comment of the
// field describes the zero value.
func New(config Config) *Project {
	p := &Project{
		config:           config,
		requests:         endpoint.NewLimiter(config.RequestRate, schema.RequestBurstFactor),
		refusals:         endpoint.NewLimiter(config.RefusalRate, schema.RefusalBurstFactor),
		rateLimitEvents:  rate.Sometimes{Interval: time.Second},
		refusedUIDEvents: rate.Sometimes{First: schema.PeerRefusedBurst, Interval: time.Second},
	}
	if config.Audit != nil {
		p.audit = config.Audit.Project(config.Name)
	}
	p.secrets.view = config.View
	p.secrets.setManifest(config.Manifest)
	return p
}

// Manifest returns the approved manifest.
func (p *Project) Manifest() *manifest.Manifest { return p.secrets.manifest() }

// ReplaceManifest replaces the approved manifest. The new manifest also applies to requests
// that are waiting for a secret, and to watches.
func (p *Project) ReplaceManifest(m *manifest.Manifest) { p.secrets.setManifest(m) }

// Counts returns the number of requested names for each outcome since the call of New. NotFound
// includes the allowed names that were requested while no secrets were loaded.
func (p *Project) Counts() schema.Counts {
	return schema.Counts{
		Allowed:  p.counts[allowed].Load(),
		Denied:   p.counts[denied].Load(),
		NotFound: p.counts[notFound].Load() + p.counts[notLoaded].Load(),
	}
}

// RequestLimit returns the limiter for requests per second. A new connection and its
// first request together count as one request, unless the request is long.
func (p *Project) RequestLimit() *endpoint.Limiter { return p.requests }

// Serve answers the requests on one connection. If the caller is not allowed to use the project's
// socket, Serve answers no request and sends at most a refusal.
func (p *Project) Serve(s *endpoint.Session) {
	if refusal, refused := p.refuseCaller(s.Caller()); refused {
		s.WriteRefusal(refusal, p.requests)
		return
	}
	s.Run(endpoint.Handler{
		MaxLine:       schema.MaxRequest,
		Limit:         p.requests,
		Batch:         true,
		Park:          true,
		Answer:        func(line []byte) endpoint.Reply { return p.answer(s, line) },
		AnswerTooLong: func() endpoint.Reply { return endpoint.RefuseTooLong(schema.MaxRequest) },
		AnswerLimited: func(retryAfter int) endpoint.Reply {
			return p.refuseLimited(s.Caller(), retryAfter, "too many requests")
		},
	})
}

func (p *Project) refuseCaller(caller endpoint.Caller) (refusal endpoint.Reply, refused bool) {
	if p.Allows(caller) {
		return endpoint.Reply{}, false
	}
	p.refusedUIDEvents.Do(func() {
		if p.config.Audit != nil {
			audit.Record(p.config.Audit, schema.PeerRefused{
				EventHeader: audit.Header(schema.EventPeerRefused), EventCaller: caller.Event(), Project: p.config.Name,
			})
		}
	})
	return endpoint.Refuse(schema.CodePeerUnexpected, "uid %d is not allowed to use the socket of project %s; the operator can allow this uid with keyhatchctl register --allow-uid", caller.UID, p.config.Name), true
}

// Allows reports whether a caller may use the project's socket. A caller whose uid is unknown may
// never use it (see endpoint.Caller.IsIdentified).
func (p *Project) Allows(caller endpoint.Caller) bool {
	return caller.IsIdentified() && slices.Contains(p.config.UIDs, caller.UID)
}

// End makes the project answer no more requests. If a client sends a request after End, the
// project ends the client's connection. End itself closes no connection.
func (p *Project) End() { p.ended.Store(true) }

func (p *Project) answer(s *endpoint.Session, line []byte) endpoint.Reply {
	if p.ended.Load() {
		return endpoint.HangUp()
	}
	if name, waitMS, ok := wire.ParseGet(line); ok {
		return p.get(s, p.secrets.internName(name), waitMS)
	}
	return p.answerUnusual(s, line)
}

// answerUnusual answers a request that wire.ParseGet has not accepted.
func (p *Project) answerUnusual(s *endpoint.Session, line []byte) endpoint.Reply {
	s.Flush() // send the previous answers now, because decoding an unusual line can take some milliseconds
	var request schema.Request
	if err := wire.Decode(line, &request, schema.MaxDepth); err != nil {
		return endpoint.RefuseMalformed("request", err)
	}
	switch request.Op {
	case schema.OpGet:
		return p.getUnusual(s, line)
	case schema.OpGetMany:
		return p.getMany(s, line)
	case schema.OpWatch:
		return watch(s, &p.secrets)
	case schema.OpInfo:
		m := p.Manifest()
		s.CountNames(len(m.Allowlist()))
		return endpoint.Answer(schema.InfoResponse{
			OK: true, Project: p.config.Name, Allowlist: m.Allowlist(), SchemaVersion: schema.ManifestVersion,
			Secrets: m.Injections(), Helpers: m.Helpers,
		})
	case schema.OpPing:
		return endpoint.Answer(schema.ProjectPingResponse{
			OK: true, BrokerVersion: p.config.BrokerVersion, ProtocolVersion: schema.ProtocolVersion,
			InstanceID: p.config.InstanceID, Project: p.config.Name,
		})
	}
	return endpoint.RefuseUnknownOp("project", schema.ProjectOperations)
}

// getUnusual answers a get request that wire.ParseGet has not accepted.
func (p *Project) getUnusual(s *endpoint.Session, line []byte) endpoint.Reply {
	var request schema.GetRequest
	if err := wire.Decode(line, &request, schema.MaxDepth); err != nil {
		return endpoint.RefuseMalformed("get", err)
	}
	if !schema.ValidSecretName(request.Name) {
		return endpoint.Refuse(schema.CodeProtocolError, "get: name must match %s", schema.SecretNamePattern)
	}
	return p.get(s, request.Name, request.WaitMS)
}

func (p *Project) get(s *endpoint.Session, name schema.SecretName, waitMS int64) endpoint.Reply {
	results := [1]result{{name: name}} // not on the heap, because a get must not allocate memory
	found := lookup{results: results[:]}
	if refusal, ok := p.fetch(s, schema.OpGet, &found, waitMS); !ok {
		return refusal
	}
	if r := &results[0]; r.outcome != allowed {
		found.release()
		return endpoint.Refuse(r.outcome.code(), "get: %s", r.message())
	}
	release, expired := found.snapshot.Lease()
	return endpoint.Reply{Line: results[0].value.Line, Release: release, Expired: expired}
}

func (p *Project) getMany(s *endpoint.Session, line []byte) endpoint.Reply {
	var request schema.GetManyRequest
	if err := wire.Decode(line, &request, schema.MaxDepth); err != nil {
		return endpoint.RefuseMalformed("get-many", err)
	}
	seen := make(map[schema.SecretName]bool, len(request.Names))
	for _, name := range request.Names {
		if !schema.ValidSecretName(name) {
			return endpoint.Refuse(schema.CodeProtocolError, "get-many: each name in names must match %s", schema.SecretNamePattern)
		}
		if seen[name] {
			return endpoint.Refuse(schema.CodeProtocolError, "get-many: duplicate name in names: %s", name)
		}
		seen[name] = true
	}
	found := lookup{wholeAllowlist: request.Names == nil, results: emptyResults(request.Names)}
	if refusal, ok := p.fetch(s, schema.OpGetMany, &found, request.WaitMS); !ok {
		return refusal
	}
	release, expired := found.snapshot.Lease()
	return endpoint.Reply{Pieces: found.getManyResponse(), Release: release, Expired: expired}
}

// fetch is the common part of get and get-many. It waits for the secrets, enforces the
// limit on refused names, and records and counts the request. If ok is true, found contains the
// results, and the calling function must release found after the reply was written. If ok is
// false, found must not be used or released, and the calling function must answer the request
// with refusal.
func (p *Project) fetch(s *endpoint.Session, op schema.Op, found *lookup, waitMS int64) (refusal endpoint.Reply, ok bool) {
	if waitMS < 0 || waitMS > schema.MaxWait.Milliseconds() {
		return endpoint.Refuse(schema.CodeProtocolError, "%s: wait_ms must be between 0 and %d", op, schema.MaxWait.Milliseconds()), false
	}
	if waitMS == 0 {
		p.secrets.lookUp(s, found)
	} else if !p.secrets.await(s, found, time.Duration(waitMS)*time.Millisecond) {
		return endpoint.HangUp(), false
	}
	for {
		if p.ended.Load() { // End was called after the request had arrived
			found.release()
			return endpoint.HangUp(), false
		}
		counts := found.countOutcomes()
		// A caller that requests many names that are denied or not found is probably
		// guessing.
		if retryAfter, exceeded := p.refusals.Exceeded(counts[denied] + counts[notFound]); exceeded {
			found.release()
			return p.refuseLimited(s.Caller(), retryAfter, "too many names that are denied or not found"), false
		}
		if p.audit != nil && p.audit.Required() {
			// record can wait for the disk. Before that, Gone sends the previous answers, and
			// begins to watch whether the client ends the connection.
			s.Gone()
		}
		if !p.record(s.Caller(), counts) {
			found.release()
			return endpoint.Refuse(schema.CodeAuditUnavailable, "%s: cannot write the audit event, which this broker requires (--audit-required)", op), false
		}
		// If audit is required, writing the event can take almost one second. During this time,
		// the broker can acknowledge a push, a clear, or a reload to another client. An answer
		// must not contain older secrets, so look up the names again. If the recorded event has
		// other counts than the new lookup, repeat the loop and record another event.
		same := p.secrets.isCurrent(found)
		if !same {
			found.release()
			p.secrets.lookUp(s, found)
			same = found.countOutcomes() == counts
		}
		if same && !p.ended.Load() {
			return endpoint.Reply{}, true
		}
	}
}

// record adds a request to the audit log and to the project's counts. If audit is required and
// the event could not be written in time, record returns false, and the request must be refused.
// If the project has no audit log, record does nothing and returns true.
func (p *Project) record(caller endpoint.Caller, counts outcomes) bool {
	if p.audit == nil {
		return true
	}
	if !p.audit.RecordFetch(audit.Fetch{
		Caller: caller.Event(), Allowed: counts[allowed], Denied: counts[denied], NotFound: counts[notFound] + counts[notLoaded],
	}) {
		return false
	}
	for i, n := range counts {
		if n > 0 {
			p.counts[i].Add(uint64(n))
		}
	}
	return true
}

// refuseLimited returns the refusal of a request that exceeds a rate limit. It records the refusal
// in the audit log, but at most as often as rateLimitEvents allows. retryAfter is in seconds. The
// argument limited is the part of the message that describes the limit.
func (p *Project) refuseLimited(caller endpoint.Caller, retryAfter int, limited string) endpoint.Reply {
	p.rateLimitEvents.Do(func() {
		if p.config.Audit != nil {
			audit.Record(p.config.Audit, schema.RateLimited{
				EventHeader: audit.Header(schema.EventRateLimited), EventCaller: caller.Event(), Project: p.config.Name,
			})
		}
	})
	return endpoint.RefuseFor(retryAfter, schema.CodeRateLimited, "rate limit of project %s exceeded: %s", p.config.Name, limited)
}
