package broker

import (
	"errors"
	"fmt"
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// An adminSession is a connection to the admin socket. Its lines are read into
// locked memory, because any of them may be a push.
type adminSession struct {
	*session
	server *Server
	buffer lineBuffer
}

// serveAdmin runs one connection. Whoever can connect may do everything here:
// the socket's mode is the gate.
func (s *Server) serveAdmin(conn *session) {
	a := &adminSession{session: conn, server: s}
	defer a.buffer.free()
	a.lines = wire.NewReader(a.conn, schema.MaxPush, a.buffer.grow)
	a.run(a.dispatch)
}

func (a *adminSession) dispatch(line []byte) reply {
	if line == nil { // only a push could have been that long
		return a.rejectPush(tooLong(schema.MaxPush), schema.CodePayloadTooLarge)
	}
	var request schema.Request
	if err := wire.Decode(line, &request, schema.MaxDepth); err != nil {
		clear(line)
		return malformed("request", err)
	}
	if request.Op == schema.OpPush {
		return a.push(line)
	}
	defer clear(line)
	if len(line) > schema.MaxRequest {
		return tooLong(schema.MaxRequest)
	}
	switch request.Op {
	case schema.OpClear:
		count := a.server.keyring.clear()
		record(a.server.audit, schema.SecretsCleared{
			EventHeader: header(schema.EventCleared), EventCaller: a.caller.event(), SecretCount: count,
		})
		return answer(schema.OKResponse{OK: true})
	case schema.OpRegister:
		return serveProjectOp(a, request.Op, line, a.register)
	case schema.OpUnregister:
		return serveProjectOp(a, request.Op, line, a.unregister)
	case schema.OpReload:
		return serveProjectOp(a, request.Op, line, a.reload)
	case schema.OpList:
		return answer(schema.ListResponse{OK: true, Names: a.server.keyring.names()})
	case schema.OpStatus:
		return answer(a.server.Status())
	case schema.OpPing:
		return answer(schema.AdminPingResponse{
			OK: true, BrokerVersion: a.server.version, ProtocolVersion: schema.ProtocolVersion, InstanceID: a.server.instanceID,
		})
	}
	return unknownOp("admin", schema.AdminOperations)
}

// push takes a whole new set. The arena that the line was read into becomes the
// snapshot's; on any error it is wiped and nothing has changed.
func (a *adminSession) push(line []byte) reply {
	if err := wire.Check(line, &schema.PushRequest{}, schema.MaxDepth); err != nil {
		clear(line)
		return a.rejectPush(malformed(string(schema.OpPush), err), schema.CodeProtocolError)
	}
	// The line is a slice of the arena that runs on to its end.
	offset := cap(a.buffer.arena.Bytes()) - cap(line)
	parsed, err := parsePush(line, offset)
	if err != nil {
		clear(line)
		return a.rejectPush(refuse(schema.CodeInvalidPayload, "push-creds: %v", err), schema.CodeInvalidPayload)
	}
	arena := a.buffer.take()
	if err := a.lines.Detach(); err != nil {
		arena.Free()
		return a.noMemory(err)
	}
	snap, err := parsed.snapshot(arena, time.Now().UTC())
	if err != nil {
		arena.Free()
		return a.noMemory(err)
	}
	count, loadedAt := len(snap.secrets), snap.loadedAt
	a.server.warnMemory(snap.arena.Kind())
	generation := a.server.keyring.replace(snap)
	record(a.server.audit, schema.SecretsPushed{
		EventHeader: header(schema.EventPushed), EventCaller: a.caller.event(), SecretCount: count, Generation: generation,
	})
	return answer(schema.PushResponse{OK: true, LoadedAt: loadedAt, SecretCount: count, Generation: generation})
}

func (a *adminSession) rejectPush(r reply, code schema.Code) reply {
	record(a.server.audit, schema.PushRejected{
		EventHeader: header(schema.EventPushRejected), EventCaller: a.caller.event(), Code: code,
	})
	return r
}

// noMemory ends a connection whose buffer is gone.
func (a *adminSession) noMemory(err error) reply {
	a.server.log.Error("a push was refused", "error", err)
	r := a.rejectPush(refuse(schema.CodeInternalError, "push-creds: there is no memory for the secrets"), schema.CodeInternalError)
	r.end = true
	return r
}

// An opError is a refusal on its way to becoming a reply.
type opError struct {
	code schema.Code
	text string
}

func (e *opError) Error() string { return e.text }

// refusal is an opError. The arguments must be validated or the broker's own.
func refusal(code schema.Code, format string, args ...any) error {
	return &opError{code, fmt.Sprintf(format, args...)}
}

// serveProjectOp decodes the request of an op on projects and answers with what
// serve makes of it.
func serveProjectOp[Request, Response any](a *adminSession, op schema.Op, line []byte, serve func(Request) (Response, error)) reply {
	var request Request
	if err := wire.Decode(line, &request, schema.MaxDepth); err != nil {
		return malformed(string(op), err)
	}
	response, err := serve(request)
	if err == nil {
		return answer(response)
	}
	if e, ok := errors.AsType[*opError](err); ok {
		return refuse(e.code, "%s: %s", op, e.text)
	}
	a.server.log.Error("a request failed", "op", op, "error", err)
	return refuse(schema.CodeInternalError, "%s: %v", op, err)
}
