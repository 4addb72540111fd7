// Package client contains keyhatch's only dialer. An Admin connects to the admin socket,
// and a Project connects to a project socket.
//
// A client trusts every answer that it receives on the socket at its path. In a project
// container, this is justified because the socket's directory was mounted into the
// container on purpose. The secrets that a client returns are in ordinary Go memory. Only
// the broker and the sidecar use locked memory.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// responseTimeout is the maximum time to wait for an answer, in addition to the wait time in the
// request. If the broker needs more time, the client assumes that the broker hangs.
const responseTimeout = 10 * time.Second

// maxSocketPath is the maximum length of a socket's path in bytes (unix(7): sun_path
// has 108 bytes, and the last one is a NUL).
const maxSocketPath = 107

// ErrUnreachable means that no broker answered on the socket. For example, the socket does not
// exist, no process listens on the socket, or the connection ended before the answer. An error
// that wraps ErrUnreachable also contains the path of the socket and the reason.
var ErrUnreachable = errors.New("cannot reach the broker")

// ErrProtocol means that the broker has sent a line that does not follow version 2 of the
// protocol, or that is too long.
var ErrProtocol = errors.New("invalid answer from the broker")

// An Error is an error response of the broker.
type Error struct {
	Code       schema.Code
	Message    string
	RetryAfter time.Duration // when the client can try again; 0 if the response does not contain this time
	TokenFile  string        // the file with the admin token on the broker's host; "" if the response does not contain it
}

func (e *Error) Error() string { return e.Message }

// CodeOf returns the code of an error that the broker returned, or "" for any other
// error.
func CodeOf(err error) schema.Code {
	if refusal, ok := errors.AsType[*Error](err); ok {
		return refusal.Code
	}
	return ""
}

// conn is a connection to the admin socket or to a project socket. At most one request
// is in progress at a time.
type conn struct {
	*net.UnixConn
	path  string
	lines *wire.Reader
}

// unreachable returns an ErrUnreachable for the socket at path. It shortens errors of
// package net, because such errors repeat the path.
func unreachable(path string, reason error) error {
	if errno, ok := errors.AsType[syscall.Errno](reason); ok {
		reason = errno
	} else if operation, ok := errors.AsType[*net.OpError](reason); ok {
		reason = operation.Err
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, path, reason)
}

func dial(ctx context.Context, path string) (*conn, error) {
	if len(path) > maxSocketPath {
		return nil, unreachable(path, fmt.Errorf("the path has %d bytes, but the system allows at most %d", len(path), maxSocketPath))
	}
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, unreachable(path, err)
	}
	return &conn{c.(*net.UnixConn), path, wire.NewReader(c, schema.MaxResponse, nil)}, nil
}

// peer returns the credentials of the process that listens on the socket (SO_PEERCRED, unix(7)).
func (c *conn) peer() (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var credentials *unix.Ucred
	var optionErr error
	if err := raw.Control(func(fd uintptr) {
		credentials, optionErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return credentials, optionErr
}

// call sends one request and decodes the answer into response, which is a pointer to a response
// type of package schema. It waits for the answer for at most responseTimeout plus wait. If the
// broker answers with an error response, the error of call is an *Error.
func (c *conn) call(ctx context.Context, request, response any, wait time.Duration) error {
	line, err := wire.Encode(request)
	if err != nil {
		return err // for example, if a name in the request is not valid UTF-8
	}
	defer clear(line)
	return c.sendLine(ctx, line, response, wait)
}

// sendLine sends an encoded request, which ends with a newline, and decodes the answer
// in the same way as call.
func (c *conn) sendLine(ctx context.Context, line []byte, response any, wait time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(responseTimeout + wait)); err != nil {
		return unreachable(c.path, err)
	}
	// If ctx ends, set a deadline in the past, so that a blocked write or read returns.
	stopInterrupt := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stopInterrupt()

	_, writeErr := c.Write(line)
	// Read the answer even if the write failed. A broker that refuses a caller sends an
	// error and ends the connection, possibly before it reads the request.
	answer, err := c.readLine(ctx, writeErr)
	if err != nil {
		return err
	}
	var errorResponse schema.ErrorResponse
	if err := wire.Decode(answer, &errorResponse, schema.MaxResponseDepth); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if !errorResponse.OK {
		if errorResponse.Code == "" {
			return fmt.Errorf("%w: the answer is an error without a code", ErrProtocol)
		}
		return &Error{errorResponse.Code, errorResponse.Message, time.Duration(errorResponse.RetryAfterSeconds) * time.Second, errorResponse.TokenFile}
	}
	if err := wire.Decode(answer, response, schema.MaxResponseDepth); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

// readLine reads one line, which is valid until the next call of readLine. writeErr is the error
// with which sending the request failed, or nil. If the connection ends before the first byte of
// the line and writeErr is not nil, the returned error contains writeErr as the reason.
func (c *conn) readLine(ctx context.Context, writeErr error) ([]byte, error) {
	line, err := c.lines.ReadLine()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err == io.EOF && writeErr != nil {
		err = writeErr
	}
	switch {
	case errors.Is(err, wire.ErrTooLong):
		return nil, fmt.Errorf("%w: the answer is longer than %d bytes", ErrProtocol, schema.MaxResponse)
	case errors.Is(err, io.EOF):
		return nil, unreachable(c.path, errors.New("the connection ended before the answer"))
	case err != nil:
		return nil, unreachable(c.path, err)
	}
	return line, nil
}
