package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// A TokenFileError means that the file with the admin token cannot be read, or contains no
// token. Its text contains no part of the file's content.
type TokenFileError struct{ Err error }

func (e *TokenFileError) Error() string { return "cannot read the admin token: " + e.Err.Error() }

func (e *TokenFileError) Unwrap() error { return e.Err }

// An UntrustedListenerError means that the process that listens on the socket did not get the
// admin token, because it belongs to a user who is neither root, nor the user of this process,
// nor the owner of the token file.
type UntrustedListenerError struct {
	Socket, TokenFile string
	UID               uint32 // of the listener
}

func (e *UntrustedListenerError) Error() string {
	return fmt.Sprintf("did not send the admin token to %s: uid %d listens on this socket, but only root, you, and the owner of %s may receive the token", e.Socket, e.UID, e.TokenFile)
}

// tokenTimeout is how long DialAdminWithToken tries again if the token file is missing or the
// broker ends the connection.
const tokenTimeout = 2 * time.Second

// DialAdminWithToken connects to the admin socket at path, and authorizes the connection with
// the token in the file tokenFile. If tokenFile is "", DialAdminWithToken does the same as
// DialAdmin. A *TokenFileError means that the file cannot be used. An *UntrustedListenerError
// means that the process that listens on the socket must not get the token.
//
// A broker generates a new token at each start. If the broker refuses the token and the file has
// changed in the meantime, DialAdminWithToken connects again and sends the new token. If the file
// is missing or the broker ends the connection, the broker is possibly restarting, so
// DialAdminWithToken tries again for up to tokenTimeout.
func DialAdminWithToken(ctx context.Context, path, tokenFile string) (*Admin, error) {
	if tokenFile == "" {
		return DialAdmin(ctx, path)
	}
	deadline := time.Now().Add(tokenTimeout)
	var refused []byte // the last auth request that the broker has refused; nil if there is none
	defer func() { clear(refused) }()
	var refusal error
	for {
		// Connect before the file is read, because the connection can make the service manager
		// start the broker, which then creates the file.
		c, err := dial(ctx, path)
		if err != nil && !errors.Is(err, syscall.EAGAIN) { // try again after EAGAIN: many other clients are connecting
			return nil, err
		}
		if err == nil {
			var request []byte
			var owner uint32
			if request, owner, err = awaitToken(ctx, tokenFile, deadline); err != nil {
				c.Close()
				return nil, err
			}
			if err := checkListener(c, tokenFile, owner); err != nil {
				clear(request)
				c.Close()
				return nil, err
			}
			if bytes.Equal(request, refused) {
				clear(request)
				c.Close()
				return nil, refusal
			}
			var response schema.OKResponse
			err = c.sendLine(ctx, request, &response, 0)
			if err == nil {
				clear(request)
				return &Admin{c}, nil
			}
			c.Close()
			clear(refused)
			refused = nil
			if CodeOf(err) == schema.CodeUnauthorized {
				refused, refusal = request, err
				continue
			}
			clear(request)
		}
		if !errors.Is(err, ErrUnreachable) || !sleep(ctx, deadline) {
			return nil, err
		}
	}
}

// checkListener returns an error if the process that listens on the socket must not get the token
// of a file that belongs to owner. If every user can write to the directory of the socket, another
// user can listen at the path first, for example before ssh forwards the socket to this path. Root,
// owner, and the user of this process may get the token, because they can read the file. But the
// kernel reports schema.UnmappedUID for every uid without a mapping in the user namespace of this
// process, so two users with this uid can be different users.
func checkListener(c *conn, tokenFile string, owner uint32) error {
	listener, err := c.peer()
	if err != nil {
		return unreachable(c.path, err)
	}
	if uid := listener.Uid; uid == schema.UnmappedUID || uid != 0 && uid != uint32(os.Geteuid()) && uid != owner {
		return &UntrustedListenerError{c.path, tokenFile, uid}
	}
	return nil
}

// sleep waits for minRetryDelay and returns true. If the deadline is earlier, sleep returns false
// at once. If ctx ends earlier, sleep returns false then.
func sleep(ctx context.Context, deadline time.Time) bool {
	if time.Now().Add(minRetryDelay).After(deadline) {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(minRetryDelay):
		return true
	}
}

// awaitToken calls readToken. If the file does not exist, awaitToken waits until the file exists,
// the deadline has passed, or ctx ends. The error is a *TokenFileError or the error of ctx.
func awaitToken(ctx context.Context, file string, deadline time.Time) (request []byte, owner uint32, err error) {
	for {
		request, owner, err := readToken(file)
		if err == nil {
			return request, owner, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || !sleep(ctx, deadline) {
			if ctx.Err() != nil {
				return nil, 0, ctx.Err()
			}
			return nil, 0, &TokenFileError{err}
		}
	}
}

// tokenDigits is the number of hexadecimal digits of a token (schema.AdminTokenPattern).
const tokenDigits = 64

// readToken reads the token in the file at path. It returns an encoded auth request with this
// token, and the uid of the owner of the file. The calling function must wipe the request. The
// token is never a Go string, because a string cannot be wiped.
func readToken(path string) (request []byte, owner uint32, err error) {
	// With O_NONBLOCK, opening a pipe does not wait for a writer. A pipe is then refused below.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a regular file", path)
	}
	content := make([]byte, tokenDigits+8) // a few bytes more, because a copied file can have another line ending
	defer clear(content)
	n, err := io.ReadFull(file, content)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, 0, err
	}
	token := bytes.TrimSpace(content[:n])
	isDigit := func(c rune) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }
	if len(token) != tokenDigits || n == len(content) || bytes.ContainsFunc(token, func(c rune) bool { return !isDigit(c) }) {
		return nil, 0, fmt.Errorf("%s does not contain a token of %d hexadecimal digits", path, tokenDigits)
	}
	const prefix, suffix = `{"op":"` + string(schema.OpAuth) + `","token":"`, "\"}\n"
	line := make([]byte, 0, len(prefix)+tokenDigits+len(suffix)) // append must not copy the token to another place
	return append(append(append(line, prefix...), token...), suffix...), info.Sys().(*syscall.Stat_t).Uid, nil
}
