package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A readerFunc is a function that implements io.Reader.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// CancelableReader returns a reader that reads from f and returns ctx.Err() after ctx is
// canceled. A canceled context does not end a read from a terminal or a pipe, so the reader
// calls read only if data or the end of the input is available.
func CancelableReader(ctx context.Context, f *os.File) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		for {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			if ready, err := WaitInput(f); err != nil {
				return 0, err
			} else if ready {
				return f.Read(p)
			}
		}
	})
}

// WaitInput waits until a read from f does not block, but for at most a tenth of a second.
// After that time, and after a signal, WaitInput returns false, so that the calling function
// can check whether to continue.
func WaitInput(f *os.File) (ready bool, err error) {
	const interval = 100 * time.Millisecond
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(interval.Milliseconds()))
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	return n > 0, err
}

// ReadAll appends the input to buf until the end of the input, or until buf is full.
func ReadAll(in io.Reader, buf []byte) ([]byte, error) {
	for len(buf) < cap(buf) {
		n, err := in.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return buf, err
		}
	}
	return buf, nil
}
