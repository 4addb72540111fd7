package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/keyring"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// An admin answers the requests on the admin socket. The modes of the socket file and of its
// directory decide which callers can connect. If there is an admin token, a caller must also send
// this token first. Every caller that fulfills these conditions may use every operation.
type admin struct {
	keyring  *keyring.Keyring
	registry *registry
	audit    *audit.Log
	log      *slog.Logger
	auth     *authenticator // nil if the broker requires no admin token

	exclusive exclusivePushes
	events    eventStreams

	brokerVersion string
	instanceID    string
	startedAt     time.Time
	memory        schema.Memory // kind of memory that the status reports while no secrets are loaded
	projectsDir   string
	connections   func() int // returns the number of connections to the admin socket
}

// serve answers the requests of one connection. It reads each request into memory of package
// secmem, because each request can be a push, which contains secrets.
func (a *admin) serve(s *endpoint.Session) {
	if !a.auth.admit(s) {
		return
	}
	buffer := a.keyring.NewBuffer()
	defer buffer.Free()
	defer a.exclusive.forget(s)
	s.Run(endpoint.Handler{
		MaxLine: schema.MaxPush,
		Grow:    buffer.Grow,
		Answer:  func(line []byte) endpoint.Reply { return a.answer(s, buffer, line) },
		AnswerTooLong: func() endpoint.Reply { // a line that is longer than schema.MaxPush is probably a push, so answer it as a push
			return a.rejectPush(s.Caller(), schema.CodePayloadTooLarge, endpoint.RefuseTooLong(schema.MaxPush))
		},
	})
}

func (a *admin) answer(s *endpoint.Session, buffer *keyring.LineBuffer, line []byte) endpoint.Reply {
	if request, ok := a.keyring.ParseUsual(line); ok {
		return a.push(s, buffer, line, request.Exclusive, request)
	}
	var request schema.Request
	if err := wire.Decode(line, &request, schema.MaxDepth); err != nil {
		clear(line)
		return endpoint.RefuseMalformed("request", err)
	}
	if request.Op == schema.OpPush {
		return a.unusualPush(s, buffer, line)
	}
	if request.Op == schema.OpEvents && len(line) <= schema.MaxRequest {
		return a.events.serve(s, line)
	}
	defer clear(line)
	if len(line) > schema.MaxRequest {
		recordRejected(a.registry, request.Op, line, s.Caller(), schema.CodePayloadTooLarge)
		return endpoint.RefuseTooLong(schema.MaxRequest)
	}
	caller := s.Caller()
	switch request.Op {
	case schema.OpClear:
		return a.clearSecrets(caller)
	case schema.OpRegister:
		return answerProjectOp(a, request.Op, line, caller, a.registry.register)
	case schema.OpUnregister:
		return answerProjectOp(a, request.Op, line, caller, a.registry.unregister)
	case schema.OpReload:
		return answerProjectOp(a, request.Op, line, caller, a.registry.reload)
	case schema.OpInspect:
		return answerProjectOp(a, request.Op, line, caller, a.registry.inspect)
	case schema.OpExplain:
		return answerProjectOp(a, request.Op, line, caller, a.registry.explain)
	case schema.OpList:
		return a.listSecrets(caller)
	case schema.OpStatus:
		var status schema.StatusRequest
		if err := wire.Decode(line, &status, schema.MaxDepth); err != nil {
			return endpoint.RefuseMalformed(string(request.Op), err)
		}
		a.exclusive.setStoreProblems(s, status.StoreProblems)
		return endpoint.Answer(a.status())
	case schema.OpAuth:
		return a.auth.answer(caller, line)
	case schema.OpPing:
		return endpoint.Answer(schema.AdminPingResponse{
			OK: true, BrokerVersion: a.brokerVersion, ProtocolVersion: schema.ProtocolVersion, InstanceID: a.instanceID,
		})
	}
	return endpoint.RefuseUnknownOp("admin", schema.AdminOperations)
}

// unusualPush answers a push that ParseUsual does not accept. The push is wrong, or has an
// unusual form.
func (a *admin) unusualPush(s *endpoint.Session, buffer *keyring.LineBuffer, line []byte) endpoint.Reply {
	var options struct { // without the fields of schema.PushRequest that contain secrets
		Exclusive bool `json:"exclusive"`
	}
	if err := wire.Decode(line, &options, schema.MaxDepth); err != nil {
		clear(line)
		return a.rejectPushError(s.Caller(), err)
	}
	return a.push(s, buffer, line, options.Exclusive, nil)
}

// push replaces all secrets, and returns the response. If request is nil, push first parses line.
// push wipes the memory that contains line. If push refuses the request, the old secrets stay
// loaded.
func (a *admin) push(s *endpoint.Session, buffer *keyring.LineBuffer, line []byte, exclusive bool, request *keyring.Request) endpoint.Reply {
	if exclusive {
		a.exclusive.mu.Lock()
		defer a.exclusive.mu.Unlock()
		if a.exclusive.isOwnedByOtherLocked(s) {
			clear(line)
			return a.rejectForConflictLocked(s)
		}
	}
	if arena := buffer.Take(); arena == nil {
		defer clear(line)
	} else {
		defer buffer.Return(arena)
		if err := s.Detach(); err != nil {
			return a.rejectForMemory(s.Caller(), err)
		}
	}
	if request == nil {
		var err error
		if request, err = keyring.Parse(line); err != nil {
			return a.rejectPushError(s.Caller(), err)
		}
	}
	info, err := a.keyring.Push(request)
	if err != nil {
		return a.rejectForMemory(s.Caller(), err)
	}
	if exclusive {
		a.exclusive.acceptLocked(s)
	} else {
		a.exclusive.acceptOther()
	}
	warnIfUnlocked(a.log, info.Memory)
	audit.Record(a.audit, schema.SecretsPushed{
		EventHeader: audit.Header(schema.EventSecretsPushed), EventCaller: s.Caller().Event(),
		SecretCount: info.SecretCount, Generation: info.Generation,
	})
	return endpoint.Answer(schema.PushResponse{
		OK: true, LoadedAt: info.LoadedAt, SecretCount: info.SecretCount, Generation: info.Generation,
	})
}

// rejectForConflictLocked rejects an exclusive push, because another connection has sent the last
// accepted exclusive push and is still open.
func (a *admin) rejectForConflictLocked(s *endpoint.Session) endpoint.Reply {
	a.exclusive.refused[s] = true
	owner := a.exclusive.owner.Caller()
	other := fmt.Sprintf("uid %d", owner.UID)
	if owner.PID != 0 { // 0 means that the broker cannot see the pid namespace of the other sidecar
		other += fmt.Sprintf(", pid %d", owner.PID)
	}
	return a.rejectPush(s.Caller(), schema.CodeConflict,
		endpoint.Refuse(schema.CodeConflict, "push-creds: another sidecar (%s) is connected and has already pushed", other))
}

func (a *admin) rejectPushError(caller endpoint.Caller, err error) endpoint.Reply {
	if _, ok := errors.AsType[*wire.Error](err); ok {
		return a.rejectPush(caller, schema.CodeProtocolError, endpoint.RefuseMalformed(string(schema.OpPush), err))
	}
	if _, ok := errors.AsType[*keyring.PayloadError](err); ok {
		return a.rejectPush(caller, schema.CodeInvalidPayload, endpoint.Refuse(schema.CodeInvalidPayload, "push-creds: %v", err))
	}
	return a.rejectForMemory(caller, err)
}

// rejectForMemory rejects a push because the broker does not have enough memory. It ends the
// connection, because the next request of the connection would possibly get no memory.
func (a *admin) rejectForMemory(caller endpoint.Caller, err error) endpoint.Reply {
	a.log.Error("a push failed, because the broker cannot allocate memory", "error", err)
	reply := endpoint.Refuse(schema.CodeInternalError, "push-creds: the broker cannot allocate memory for the secrets")
	reply.End = true
	return a.rejectPush(caller, schema.CodeInternalError, reply)
}

// rejectPush records in the audit log that a push was rejected, and returns the reply.
func (a *admin) rejectPush(caller endpoint.Caller, code schema.Code, reply endpoint.Reply) endpoint.Reply {
	audit.Record(a.audit, schema.PushRejected{
		EventHeader: audit.Header(schema.EventPushRejected), EventCaller: caller.Event(), Code: code,
	})
	return reply
}

func (a *admin) clearSecrets(caller endpoint.Caller) endpoint.Reply {
	count := a.keyring.Clear()
	audit.Record(a.audit, schema.SecretsCleared{
		EventHeader: audit.Header(schema.EventSecretsCleared), EventCaller: caller.Event(), SecretCount: count,
	})
	return endpoint.Answer(schema.OKResponse{OK: true})
}

func (a *admin) listSecrets(caller endpoint.Caller) endpoint.Reply {
	names := a.keyring.Names()
	audit.Record(a.audit, schema.SecretsListed{
		EventHeader: audit.Header(schema.EventSecretsListed), EventCaller: caller.Event(), SecretCount: len(names),
	})
	return endpoint.Answer(schema.ListResponse{OK: true, Names: names})
}

func (a *admin) status() schema.StatusResponse {
	status := schema.StatusResponse{
		OK: true, BrokerVersion: a.brokerVersion, ProtocolVersion: schema.ProtocolVersion,
		InstanceID: a.instanceID, UptimeSeconds: int64(time.Since(a.startedAt).Seconds()),
		Memory: a.memory, ProjectsDir: a.projectsDir, AuditDropped: a.audit.Dropped(),
		AdminToken: a.auth != nil, AdminConnections: a.connections(), EventReaders: int(a.events.readers.Load()),
	}
	if info := a.keyring.Info(); info.Generation > 0 {
		status.Generation, status.SecretCount = info.Generation, info.SecretCount
		status.SecretsLoadedAt, status.Memory = &info.LoadedAt, info.Memory
	} else if clearedAt := a.keyring.ClearedAt(); !clearedAt.IsZero() {
		status.SecretsClearedAt = &clearedAt
	}
	a.exclusive.addTo(&status)
	status.Projects, status.DescriptorStore = a.registry.status()
	status.Problems = findProblems(a.registry, a.projectsDir)
	return status
}

// answerProjectOp decodes a request of an operation on projects, and calls run with the request.
// It returns the response of run, or an error response. It passes each refused request to
// recordRejected, unless run has already recorded the refusal.
func answerProjectOp[Request, Response any](a *admin, op schema.Op, line []byte, caller endpoint.Caller, run func(Request, endpoint.Caller) (Response, error)) endpoint.Reply {
	var request Request
	if err := wire.Decode(line, &request, schema.MaxDepth); err != nil {
		recordRejected(a.registry, op, line, caller, schema.CodeProtocolError)
		return endpoint.RefuseMalformed(string(op), err)
	}
	response, err := run(request, caller)
	if err == nil {
		return endpoint.Answer(response)
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		if !r.recorded {
			recordRejected(a.registry, op, line, caller, r.code)
		}
		return endpoint.Refuse(r.code, "%s: %s", op, r.message)
	}
	recordRejected(a.registry, op, line, caller, schema.CodeInternalError)
	a.log.Error("a request on the admin socket failed", "op", op, "error", err)
	return endpoint.Refuse(schema.CodeInternalError, "%s: %v", op, err)
}

// warnIfUnlocked logs a warning if the kernel could write secrets to swap. The broker calls
// warnIfUnlocked when it starts, and after each push, because the limit of locked memory may be
// large enough for a small push, but not for a large push.
func warnIfUnlocked(log *slog.Logger, memory schema.Memory) {
	if memory == schema.MemoryUnlocked {
		log.Warn("secrets are in memory that can be swapped out", "fix", "raise RLIMIT_MEMLOCK: LimitMEMLOCK=64M in a unit, ulimit -l in a shell")
	}
}
