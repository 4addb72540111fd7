package broker

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/time/rate"
)

// An authenticator checks the admin token. Clients read the token in the token file. The broker
// itself keeps only the hash of the token in memory.
type authenticator struct {
	file     *tokenFile
	hash     [sha256.Size]byte
	audit    *audit.Log
	failures rate.Sometimes // limits the events auth.failed, because a client could otherwise fill the audit log
}

func newAuthenticator(path, runtimeDir string, log *audit.Log) (*authenticator, error) {
	file, hash, err := createTokenFile(path, runtimeDir)
	if err != nil {
		return nil, err
	}
	return &authenticator{file: file, hash: hash, audit: log, failures: rate.Sometimes{First: schema.AuthFailedBurst, Interval: time.Second}}, nil
}

// close removes the token file. It does nothing if a is nil.
func (a *authenticator) close() {
	if a != nil {
		a.file.remove()
	}
}

// maxUnauthorized returns the MaxUnauthorized for the endpoint.Config of the admin socket.
func (a *authenticator) maxUnauthorized() int {
	if a == nil {
		return 0
	}
	return schema.MaxUnauthorized
}

// shortestAuth is the number of bytes of the shortest auth request that can contain a token, with
// the newline.
const shortestAuth = len(`{"op":"auth","token":""}`) + tokenDigits + 1

// admit reads the first request of a connection, and reports whether the client may send other
// requests. If the result is false, the connection must end. admit has then already sent a refusal
// if the request did not contain the token, or if too many connections are open. If a is nil, the
// broker requires no token, and admit reads nothing and returns true.
func (a *authenticator) admit(s *endpoint.Session) bool {
	if a == nil {
		return true
	}
	buffer := make([]byte, schema.MaxAuth+1)
	defer clear(buffer)
	line, err := s.ReadFirstLine(buffer, shortestAuth, schema.AuthTimeout)
	switch {
	case err == endpoint.ErrNoFirstLine:
		return false
	case err != nil || !a.isAuthorizedBy(line):
		s.WriteUnauthorized(a.refuse(s.Caller()))
		return false
	case !s.Authorize():
		s.WriteUnauthorized(endpoint.RefuseFor(1, schema.CodeRateLimited, "too many connections: the limit of this socket is %d", schema.MaxAdminConnections))
		return false
	}
	return s.Write(endpoint.Answer(schema.OKResponse{OK: true}))
}

// answer answers an auth request on a connection that needs no token, or that is already
// authorized.
func (a *authenticator) answer(caller endpoint.Caller, line []byte) endpoint.Reply {
	if a == nil {
		return endpoint.Refuse(schema.CodeProtocolError, "auth: this broker does not use an admin token, because it was started without --admin-token-file")
	}
	if !a.isAuthorizedBy(line) {
		return a.refuse(caller)
	}
	return endpoint.Answer(schema.OKResponse{OK: true})
}

// isAuthorizedBy reports whether line is an auth request with the token. The time of the
// comparison does not depend on the token, because only hashes are compared, and they are
// compared in constant time.
func (a *authenticator) isAuthorizedBy(line []byte) bool {
	var request struct { // like schema.AuthRequest, but the token is not a string, so that it can be wiped
		Op    schema.Op      `json:"op"`
		Token jsontext.Value `json:"token"`
	}
	defer func() { clear(request.Token) }()
	if wire.Decode(line, &request, schema.MaxDepth) != nil || request.Op != schema.OpAuth || request.Token.Kind() != '"' {
		return false
	}
	token, err := jsontext.AppendUnquote(make([]byte, 0, len(request.Token)), request.Token)
	defer clear(token)
	hash := sha256.Sum256(token)
	return err == nil && subtle.ConstantTimeCompare(hash[:], a.hash[:]) == 1
}

// refuse returns the reply to a client that did not send the token. The reply does not show what
// was wrong. refuse also records the audit event auth.failed, but at most as often as the field
// failures allows.
func (a *authenticator) refuse(caller endpoint.Caller) endpoint.Reply {
	a.failures.Do(func() {
		audit.Record(a.audit, schema.AuthFailed{EventHeader: audit.Header(schema.EventAuthFailed), EventCaller: caller.Event()})
	})
	path := strings.ToValidUTF8(a.file.path, "?") // because JSON must be valid UTF-8
	reply := endpoint.Answer(schema.ErrorResponse{
		Code: schema.CodeUnauthorized, TokenFile: path,
		Message: "the admin token is missing or wrong: use --admin-token-file with the token in " + path + ", which the broker replaces at each start",
	})
	reply.End = true
	return reply
}
