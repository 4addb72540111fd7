// Package client is keyhatch's only dialer: Admin speaks to the admin socket,
// Project to a project's socket.
//
// A client trusts the path it is given and the answers that come from there; a
// project container's mount is what makes that so. Secrets that it returns are
// ordinary Go memory: the discipline of locked memory is the broker's.
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
)

// responseTimeout is how long a broker may take to answer, beyond what a request
// asks it to wait. Only a broker that hangs takes longer.
const responseTimeout = 10 * time.Second

// maxSocketPath is the longest path that fits into a Unix socket address (unix(7):
// sun_path has 108 bytes, the last of them a NUL).
const maxSocketPath = 107

// ErrUnreachable says that no broker answers on the socket: there is no socket,
// nobody listens, or the connection ended before the answer.
var ErrUnreachable = errors.New("the broker cannot be reached")

// ErrProtocol says that the answer was not one of protocol version 2.
var ErrProtocol = errors.New("the answer is not of this protocol")

// An Error is the broker's own refusal.
type Error struct {
	Code       schema.Code
	Message    string
	RetryAfter time.Duration // 0 where the broker named none
}

func (e *Error) Error() string { return e.Message }

// CodeOf returns the code of a broker's refusal, or "" for any other error.
func CodeOf(err error) schema.Code {
	if refusal, ok := errors.AsType[*Error](err); ok {
		return refusal.Code
	}
	return ""
}

// conn is a connection to either kind of socket. One request is on its way at
// a time.
type conn struct {
	*net.UnixConn
	lines *wire.Reader
}

func dial(ctx context.Context, path string) (*conn, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%w: the socket's path has %d bytes and %d is the most the system allows", ErrUnreachable, len(path), maxSocketPath)
	}
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var errno syscall.Errno
		if errors.As(err, &errno) {
			return nil, fmt.Errorf("%w: connecting to %s: %w", ErrUnreachable, path, errno)
		}
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return &conn{c.(*net.UnixConn), wire.NewReader(c, schema.MaxResponse, nil)}, nil
}

// call sends one request and decodes its answer into response, a pointer to
// one of schema's response types. The answer may take wait longer than usual.
func (c *conn) call(ctx context.Context, request, response any, wait time.Duration) error {
	line, err := wire.Encode(request)
	if err != nil {
		return err // a marshaller's of ours: it says what cannot be sent
	}
	defer clear(line)
	return c.sendLine(ctx, line, response, wait)
}

// sendLine sends one encoded request, whose line ends with a newline, and decodes
// its answer into response like call.
func (c *conn) sendLine(ctx context.Context, line []byte, response any, wait time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(responseTimeout + wait)); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	// The end of ctx must interrupt a read that waits.
	stopInterrupt := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stopInterrupt()

	_, writeErr := c.Write(line)
	// Whatever became of the write, there may be an answer: a broker that
	// refuses a caller says so and ends the connection.
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
			return fmt.Errorf("%w: an error without a code", ErrProtocol)
		}
		return &Error{errorResponse.Code, errorResponse.Message, time.Duration(errorResponse.RetryAfterSeconds) * time.Second}
	}
	if err := wire.Decode(answer, response, schema.MaxResponseDepth); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

// readLine reads one line. writeErr, where it is not nil, is why there may be none.
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
		return nil, fmt.Errorf("%w: it is over %d bytes", ErrProtocol, schema.MaxResponse)
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: the connection ended before the answer", ErrUnreachable)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return line, nil
}
