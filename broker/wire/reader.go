package wire

import (
	"bytes"
	"errors"
	"io"
)

// ErrTooLong means that a line is longer than the reader's limit. To read the next line after
// this error, first skip the long line with Discard.
var ErrTooLong = errors.New("the line is too long")

// startSize is the size of a reader's first buffer, in bytes. It is enough for most
// requests. A push, a long manifest, or a long list of names needs a larger buffer.
const startSize = 4 << 10

// A Reader splits a stream into lines. It is not safe for concurrent use.
type Reader struct {
	src io.Reader
	max int
	// grow allocates a new buffer. The comment of NewReader describes its arguments.
	grow func(pending []byte, size int) ([]byte, error)

	buf      []byte
	pos, end int // buf[pos:end] contains the bytes that were read but not yet returned
}

// NewReader returns a reader of lines. A line can have at most max bytes, not counting
// the newline.
//
// The reader calls grow when it needs a new buffer. The argument pending contains the bytes
// that were read but not yet returned. The argument size is the required minimum size of the
// new buffer, in bytes. grow returns a new buffer that begins with a copy of pending. If the
// reader calls grow because it needs more space, grow can free the old buffer, because the
// reader does not use the old buffer again. But if Detach calls grow, grow must not free the
// old buffer: Detach then wipes the pending bytes in the old buffer, which afterwards belongs
// to the function that called Detach. If grow is nil, the reader allocates its buffers on the
// Go heap.
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

// SetSource makes the reader read from another source.
func (r *Reader) SetSource(src io.Reader) { r.src = src }

// Await waits until the reader has read at least one byte of the next line. At the end of the
// stream, it returns io.EOF. It returns other errors of the source, and errors of grow,
// unchanged.
func (r *Reader) Await() error {
	if r.pos < r.end {
		return nil
	}
	return r.fill()
}

// ReadLine returns the next line without its newline. The line is a part of the reader's
// buffer, so it is valid only until the next call of any method except Detach. ReadLine
// returns io.EOF at the end of the stream. It returns io.ErrUnexpectedEOF if the stream
// ends within a line, and ErrTooLong if a line is longer than the limit. It returns other
// errors of the source, and errors of grow, unchanged.
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
		scanned = r.pos + pending // fill can move the pending bytes
	}
}

// Discard reads the rest of a line that is too long, including its newline. Otherwise a client
// that still writes the line could not read the answer. If Discard has not found the newline
// after about 16 times the limit, it returns ErrTooLong. It returns errors of the source
// unchanged.
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

// Detach makes the reader continue with a new buffer. The old buffer, which contains the last
// returned line, then belongs to the calling function. Detach moves the bytes after this line to
// the new buffer, and wipes them in the old buffer. If grow fails, Detach returns its error, and
// the reader keeps the old buffer.
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

// fill makes room in the buffer and then reads from the source once. It returns nil if it has
// read at least one byte.
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
		// Double the size of the buffer. The maximum is startSize, or the limit plus one byte for
		// the newline if this is more.
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
