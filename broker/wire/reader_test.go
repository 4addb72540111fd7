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

// readAll returns the lines of a stream and the error at its end. It copies
// each line, which is good only until the next.
func readAll(r *Reader) (lines []string, err error) {
	for {
		line, err := r.ReadLine()
		if err != nil {
			return lines, err
		}
		lines = append(lines, string(line))
	}
}

// poisonedMemory overwrites the old buffer when it grows, as an arena that is wiped and
// unmapped does, so that a line that still points there is seen.
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
		"nothing":            {"", 10, nil, io.EOF},
		"one line":           {"a\n", 10, []string{"a"}, io.EOF},
		"pipelined":          {"a\nbc\n\nd\n", 10, []string{"a", "bc", "", "d"}, io.EOF},
		"a carriage return":  {"a\r\n", 10, []string{"a\r"}, io.EOF},
		"cut within a line":  {"a\nb", 10, []string{"a"}, io.ErrUnexpectedEOF},
		"at the limit":       {"0123456789\na\n", 10, []string{"0123456789", "a"}, io.EOF},
		"one over":           {"a\n0123456789x\na\n", 10, []string{"a"}, ErrTooLong},
		"over, without end":  {"0123456789x", 10, nil, ErrTooLong},
		"at it, without end": {"0123456789", 10, nil, io.ErrUnexpectedEOF},
		"growing":            {"a\n" + long + "\nb\n", 9000, []string{"a", long, "b"}, io.EOF},
		"growing, one over":  {"a\n" + long + "x\nb\n", 9000, []string{"a"}, ErrTooLong},
		"at the first size":  {long[:startSize] + "\n" + long[:startSize-1] + "\nb\n", startSize, []string{long[:startSize], long[:startSize-1], "b"}, io.EOF},
		"many, moved":        {strings.Repeat(long[:1000]+"\n", 20), 1000, piecesOf(long[:1000], 20), io.EOF},
	} {
		for source, wrap := range map[string]func(io.Reader) io.Reader{
			"at once":             func(r io.Reader) io.Reader { return r },
			"a byte":              iotest.OneByteReader,
			"halves":              iotest.HalfReader,
			"data with the error": iotest.DataErrReader,
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

// A limit bounds the memory too, whatever is sent.
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
		t.Errorf("an endlessReader line: %v", err)
	}
	if largest > limit+1 {
		t.Errorf("a buffer of %d bytes for lines of %d", largest, limit)
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
		t.Errorf("no memory: %v", err)
	}
	if err := r.Detach(); err != fault {
		t.Errorf("no memory to detach: %v", err)
	}
}

func TestReaderFailsWithoutProgress(t *testing.T) {
	r := NewReader(emptyReader{}, 10, nil)
	if _, err := r.ReadLine(); err != io.ErrNoProgress {
		t.Errorf("a source that reads nothing: %v", err)
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
		t.Errorf("at the end: %v", err)
	}
	// With a line pending it does not read, which could block.
	r = NewReader(io.MultiReader(strings.NewReader("a\nb\n"), iotest.ErrReader(errors.New("read on"))), 10, nil)
	r.ReadLine()
	if err := r.Await(); err != nil {
		t.Errorf("with a line pending: %v", err)
	}
}

// What a push leaves behind the line that is detached is zeroed, and what lies
// before stays, because it is the caller's now.
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
		t.Fatalf("%d buffers after Detach, want 2", len(buffers))
	}
	if string(line) != "first" {
		t.Errorf("the detached line became %q", line)
	}
	if rest := buffers[0][len("first\n"):]; !bytes.Equal(rest, make([]byte, len(rest))) {
		t.Errorf("the old buffer still holds %q", bytes.Trim(rest, "\x00"))
	}
	clear(buffers[0]) // the caller's right
	if lines, err := readAll(r); !reflect.DeepEqual(lines, []string{"second"}) || err != io.ErrUnexpectedEOF {
		t.Errorf("after Detach: %q, %v", lines, err)
	}
}

// Bytes that moved to the front of the buffer leave no copy where they were.
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
		t.Errorf("the buffer holds the line %d times", n)
	}
}

// How a stream is cut into reads makes no difference to its lines.
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

// split is what a Reader should do, on a stream that is all there.
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

// chunkReader is a stream whose reads have the given lengths, over and over.
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
