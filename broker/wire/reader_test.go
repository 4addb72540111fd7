package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// readAll returns the lines of a stream and the error after the last line. It copies each
// line, because a line is valid only until the next call of ReadLine.
func readAll(r *Reader) (lines []string, err error) {
	for {
		line, err := r.ReadLine()
		if err != nil {
			return lines, err
		}
		lines = append(lines, string(line))
	}
}

// poisonedMemory provides buffers to a reader. When the reader gets a larger buffer,
// poisonedMemory overwrites the old buffer, so that a test fails if a line still points
// to the old buffer. In the broker, such a line would point to freed memory.
type poisonedMemory struct{ last []byte }

func (p *poisonedMemory) grow(pending []byte, size int) ([]byte, error) {
	b := make([]byte, size)
	copy(b, pending)
	for i := range p.last {
		p.last[i] = '#'
	}
	p.last = b
	return b, nil
}

func TestReaderSplitsLines(t *testing.T) {
	long := strings.Repeat("x", 9000)
	for name, tc := range map[string]struct {
		stream string
		max    int
		lines  []string
		end    error
	}{
		"an empty stream":                            {"", 10, nil, io.EOF},
		"one line":                                   {"a\n", 10, []string{"a"}, io.EOF},
		"several lines":                              {"a\nbc\n\nd\n", 10, []string{"a", "bc", "", "d"}, io.EOF},
		"a carriage return":                          {"a\r\n", 10, []string{"a\r"}, io.EOF},
		"a stream that ends within a line":           {"a\nb", 10, []string{"a"}, io.ErrUnexpectedEOF},
		"a line at the limit":                        {"0123456789\na\n", 10, []string{"0123456789", "a"}, io.EOF},
		"a line one byte over the limit":             {"a\n0123456789x\na\n", 10, []string{"a"}, ErrTooLong},
		"over the limit, without a newline":          {"0123456789x", 10, nil, ErrTooLong},
		"at the limit, without a newline":            {"0123456789", 10, nil, io.ErrUnexpectedEOF},
		"a line that needs a larger buffer":          {"a\n" + long + "\nb\n", 9000, []string{"a", long, "b"}, io.EOF},
		"a larger buffer, one byte over the limit":   {"a\n" + long + "x\nb\n", 9000, []string{"a"}, ErrTooLong},
		"lines as long as the first buffer":          {long[:startSize] + "\n" + long[:startSize-1] + "\nb\n", startSize, []string{long[:startSize], long[:startSize-1], "b"}, io.EOF},
		"lines that move to the front of the buffer": {strings.Repeat(long[:1000]+"\n", 20), 1000, piecesOf(long[:1000], 20), io.EOF},
	} {
		for source, wrap := range map[string]func(io.Reader) io.Reader{
			"at once":                      func(r io.Reader) io.Reader { return r },
			"one byte at a time":           iotest.OneByteReader,
			"half of the buffer at a time": iotest.HalfReader,
			"data with the error":          iotest.DataErrReader,
		} {
			t.Run(name+"/"+source, func(t *testing.T) {
				r := NewReader(wrap(strings.NewReader(tc.stream)), tc.max, (&poisonedMemory{}).grow)
				lines, err := readAll(r)
				if !reflect.DeepEqual(lines, tc.lines) || err != tc.end {
					t.Errorf("got %.50q, %v; want %.50q, %v", lines, err, tc.lines, tc.end)
				}
			})
		}
	}
}

func piecesOf(s string, n int) (list []string) {
	for range n {
		list = append(list, s)
	}
	return list
}

func TestReaderWithoutGrowUsesHeap(t *testing.T) {
	long := strings.Repeat("x", 3*startSize)
	lines, err := readAll(NewReader(strings.NewReader("a\n"+long+"\n"), len(long), nil))
	if !reflect.DeepEqual(lines, []string{"a", long}) || err != io.EOF {
		t.Errorf("got %.50q, %v", lines, err)
	}
}

// TestReaderBufferStaysWithinLimit reads a line that never ends. ReadLine must return ErrTooLong,
// and the buffer must not grow beyond the limit plus one byte.
func TestReaderBufferStaysWithinLimit(t *testing.T) {
	const limit = 100_000
	largest := 0
	r := NewReader(endlessReader{}, limit, func(pending []byte, size int) ([]byte, error) {
		largest = max(largest, size)
		b := make([]byte, size)
		copy(b, pending)
		return b, nil
	})
	if _, err := r.ReadLine(); err != ErrTooLong {
		t.Errorf("ReadLine of an endless line returned %v", err)
	}
	if largest > limit+1 {
		t.Errorf("the buffer grew to %d bytes, but lines are limited to %d bytes", largest, limit)
	}
}

type endlessReader struct{}

func (endlessReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

func TestReaderReturnsErrorsOfSource(t *testing.T) {
	fault := errors.New("fault")
	for name, stream := range map[string]string{"between lines": "a\n", "within a line": "a\nb"} {
		t.Run(name, func(t *testing.T) {
			r := NewReader(io.MultiReader(strings.NewReader(stream), iotest.ErrReader(fault)), 10, nil)
			if lines, err := readAll(r); len(lines) != 1 || err != fault {
				t.Errorf("got %q, %v", lines, err)
			}
		})
	}
	noMemory := func([]byte, int) ([]byte, error) { return nil, fault }
	r := NewReader(strings.NewReader("a\n"), 10, noMemory)
	if _, err := r.ReadLine(); err != fault {
		t.Errorf("ReadLine without memory returned %v", err)
	}
	if err := r.Detach(); err != fault {
		t.Errorf("Detach without memory returned %v", err)
	}
}

func TestReaderFailsWithoutProgress(t *testing.T) {
	r := NewReader(emptyReader{}, 10, nil)
	if _, err := r.ReadLine(); err != io.ErrNoProgress {
		t.Errorf("ReadLine of a source without data returned %v", err)
	}
}

type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, nil }

func TestAwaitConsumesNothing(t *testing.T) {
	r := NewReader(iotest.OneByteReader(strings.NewReader("ab\nc\n")), 10, nil)
	for _, want := range []string{"ab", "c"} {
		if err := r.Await(); err != nil {
			t.Fatal(err)
		}
		if line, err := r.ReadLine(); string(line) != want || err != nil {
			t.Errorf("got %q, %v; want %q", line, err, want)
		}
	}
	if err := r.Await(); err != io.EOF {
		t.Errorf("at the end of the stream, Await returned %v", err)
	}
	// If a line is already in the buffer, Await must not read, because the read could
	// block.
	r = NewReader(io.MultiReader(strings.NewReader("a\nb\n"), iotest.ErrReader(errors.New("unexpected read"))), 10, nil)
	r.ReadLine()
	if err := r.Await(); err != nil {
		t.Errorf("Await with a line in the buffer returned %v", err)
	}
}

// TestDetachMovesPendingBytes calls Detach after it has read a line. Detach must move the bytes
// after this line to the new buffer, and wipe them in the old buffer. The line must not change,
// because it now belongs to the function that called Detach.
func TestDetachMovesPendingBytes(t *testing.T) {
	var buffers [][]byte
	grow := func(pending []byte, size int) ([]byte, error) {
		b := make([]byte, size)
		copy(b, pending)
		buffers = append(buffers, b)
		return b, nil
	}
	r := NewReader(strings.NewReader("first\nsecond\nthi"), 100, grow)
	line, err := r.ReadLine()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Detach(); err != nil {
		t.Fatal(err)
	}
	if len(buffers) != 2 {
		t.Fatalf("%d buffers were allocated, want one for the line and one in Detach", len(buffers))
	}
	if string(line) != "first" {
		t.Errorf("the detached line changed to %q", line)
	}
	if rest := buffers[0][len("first\n"):]; !bytes.Equal(rest, make([]byte, len(rest))) {
		t.Errorf("the old buffer still contains %q", bytes.Trim(rest, "\x00"))
	}
	clear(buffers[0]) // the reader must not use the old buffer after Detach
	if lines, err := readAll(r); !reflect.DeepEqual(lines, []string{"second"}) || err != io.ErrUnexpectedEOF {
		t.Errorf("after Detach, the lines are %q, %v", lines, err)
	}
}

// TestMovedBytesAreWiped makes the reader move bytes to the front of its buffer. The reader must
// wipe these bytes at their old position.
func TestMovedBytesAreWiped(t *testing.T) {
	var buffer []byte
	grow := func(pending []byte, size int) ([]byte, error) {
		buffer = make([]byte, size)
		copy(buffer, pending)
		return buffer, nil
	}
	padding := strings.Repeat("-", startSize-len("\nsecret"))
	r := NewReader(io.MultiReader(strings.NewReader(padding+"\nsecret"), strings.NewReader("!\n")), startSize, grow)
	r.ReadLine()
	line, err := r.ReadLine()
	if string(line) != "secret!" || err != nil {
		t.Fatalf("got %q, %v", line, err)
	}
	if n := bytes.Count(buffer, []byte("secret")); n != 1 {
		t.Errorf("the buffer contains %d copies of the line, want 1", n)
	}
}

// FuzzReader compares a Reader with splitLines. The lines must not depend on how many
// bytes each read of the stream returns.
func FuzzReader(f *testing.F) {
	f.Add([]byte("a\nbc\n\nd"), []byte{1, 2}, uint16(10))
	f.Add([]byte("0123456789\n0123456789x\n"), []byte{3}, uint16(10))
	f.Add(bytes.Repeat([]byte("line\n"), 900), []byte{255, 1}, uint16(4))
	f.Add([]byte(strings.Repeat("x", 9000)+"\n"), []byte{}, uint16(9000))
	f.Fuzz(func(t *testing.T, stream, cuts []byte, limit uint16) {
		want, wantErr := splitLines(stream, int(limit))
		for _, r := range []io.Reader{bytes.NewReader(stream), &chunkReader{stream, cuts, 0}} {
			got, err := readAll(NewReader(r, int(limit), (&poisonedMemory{}).grow))
			if fmt.Sprint(got) != fmt.Sprint(want) || err != wantErr {
				t.Fatalf("got %q, %v; want %q, %v", got, err, want, wantErr)
			}
		}
	})
}

// splitLines splits a complete stream into lines. It follows the same rules as a Reader,
// but is simpler.
func splitLines(stream []byte, limit int) (lines []string, err error) {
	for len(stream) > 0 {
		line, rest, found := bytes.Cut(stream, []byte("\n"))
		switch {
		case len(line) > limit:
			return lines, ErrTooLong
		case !found:
			return lines, io.ErrUnexpectedEOF
		}
		lines, stream = append(lines, string(line)), rest
	}
	return lines, io.EOF
}

// chunkReader reads from a stream in pieces. lengths contains the sizes of the pieces.
// After the last size, it starts again with the first size.
type chunkReader struct {
	rest, lengths []byte
	next          int
}

func (c *chunkReader) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := 1
	if len(c.lengths) > 0 {
		n = max(1, int(c.lengths[c.next%len(c.lengths)]))
		c.next++
	}
	n = copy(b, c.rest[:min(n, len(c.rest))])
	c.rest = c.rest[n:]
	return n, nil
}
