package wire

import (
	"bytes"
	"errors"
	"io"
)

// ErrTooLong says that a line is over the reader's limit. All that can be done
// with the stream is to Discard the line.
var ErrTooLong = errors.New("the line is too long")

// startSize is the size of a reader's first buffer, in bytes: a page, which
// holds any request but a push or a long manifest.
const startSize = 4 << 10

// A Reader cuts a stream into lines. It is not safe for concurrent use.
type Reader struct {
	src io.Reader
	max int
	// grow returns a buffer of at least size bytes that begins with pending,
	// the bytes read and not yet returned, and disposes of the old buffer.
	grow func(pending []byte, size int) ([]byte, error)

	buf      []byte
	pos, end int // buf[pos:end] is pending
}

// NewReader returns a reader of lines of at most max bytes, newline not
// counted. Memory comes from grow, which gets the pending bytes and the least
// size wanted, and returns a buffer that begins with those bytes; the buffer
// that held them is never used again by the reader. A nil grow means the Go
// heap.
func NewReader(src io.Reader, max int, grow func(pending []byte, size int) ([]byte, error)) *Reader {
	if grow == nil {
		grow = func(pending []byte, size int) ([]byte, error) {
			b := make([]byte, size)
			copy(b, pending)
			return b, nil
		}
	}
	return &Reader{src: src, max: max, grow: grow}
}

// Await blocks until at least one byte of the next line has been read.
func (r *Reader) Await() error {
	if r.pos < r.end {
		return nil
	}
	return r.fill()
}

// ReadLine returns the next line without its newline. The line lies in the
// reader's buffer and is good until the next call of any method. At the end of
// the stream it returns io.EOF, and io.ErrUnexpectedEOF within a line; a line
// over the limit is ErrTooLong.
func (r *Reader) ReadLine() ([]byte, error) {
	scanned := r.pos
	for {
		if i := bytes.IndexByte(r.buf[scanned:r.end], '\n'); i >= 0 {
			line := r.buf[r.pos : scanned+i]
			if len(line) > r.max {
				return nil, ErrTooLong
			}
			r.pos = scanned + i + 1
			return line, nil
		}
		if r.end-r.pos > r.max {
			return nil, ErrTooLong
		}
		pending := r.end - r.pos
		if err := r.fill(); err != nil {
			if err == io.EOF && pending > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		scanned = r.pos + pending // fill may have moved the pending bytes
	}
}

// Discard drops the rest of a line that is too long, newline included, so that
// a client that is still writing it comes to read the answer. It gives up after
// 16 times the limit.
func (r *Reader) Discard() error {
	for left := 16 * r.max; left > 0; {
		pending := r.buf[r.pos:r.end]
		if i := bytes.IndexByte(pending, '\n'); i >= 0 {
			r.pos += i + 1
			return nil
		}
		left -= len(pending)
		r.pos = r.end
		if err := r.fill(); err != nil {
			return err
		}
	}
	return ErrTooLong
}

// Detach gives the current buffer up: the bytes read beyond the last line move
// to a new one, and what they leave behind is zeroed. The caller then owns
// what it gave to the reader before.
func (r *Reader) Detach() error {
	pending := r.buf[r.pos:r.end]
	buf, err := r.grow(pending, max(startSize, len(pending)))
	if err != nil {
		return err
	}
	r.buf, r.pos, r.end = buf, 0, len(pending)
	clear(pending)
	return nil
}

// fill reads once, making room first.
func (r *Reader) fill() error {
	switch {
	case r.pos == r.end:
		r.pos, r.end = 0, 0
	case r.end == len(r.buf) && r.pos > 0:
		copy(r.buf, r.buf[r.pos:r.end])
		clear(r.buf[r.end-r.pos : r.end])
		r.pos, r.end = 0, r.end-r.pos
	}
	if r.end == len(r.buf) {
		// Doubling, with one byte over the limit for the newline.
		size := min(max(startSize, 2*len(r.buf)), max(startSize, r.max+1))
		buf, err := r.grow(r.buf[r.pos:r.end], size)
		if err != nil {
			return err
		}
		r.buf, r.pos, r.end = buf, 0, r.end-r.pos
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}
