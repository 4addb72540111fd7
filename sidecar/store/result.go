package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// A result is what a child process reports about its read of a store. It contains no value of
// a secret. The child process first writes the line of the push request, which is empty after
// an error. It then writes the result as one line of JSON.
type result struct {
	Names  []schema.SecretName `json:"names"`
	Error  []byte              `json:"error"`  // an error can contain the name of a file, which need not be valid UTF-8
	Causes []string            `json:"causes"` // keys of errorCauses
}

// errorCauses contains the errors that a caller of Read can distinguish with errors.Is.
var errorCauses = map[string]error{
	"unstable":   ErrUnstable,
	"not_exist":  fs.ErrNotExist,
	"permission": fs.ErrPermission,
}

// A childError is an error of the child process that read the store.
type childError struct {
	text   string
	causes []error
}

func (e *childError) Error() string   { return e.text }
func (e *childError) Unwrap() []error { return e.causes }

// errIncomplete means that a child process ended before it had written its result.
var errIncomplete = errors.New("the result is incomplete")

// WriteResult reads a store and writes the result to w. It returns an error only if it cannot
// write to w.
//
// WriteResult leaves copies of the secrets in the memory of the process. So the process must
// end soon after WriteResult.
func WriteResult(ctx context.Context, source Store, w io.Writer) error {
	set, err := source.Read(ctx)
	var line []byte
	if err == nil {
		line, err = set.EncodePush()
	}
	r := result{Names: slices.Sorted(maps.Keys(set))}
	if err != nil {
		line, r = []byte("\n"), result{Error: []byte(err.Error())}
		for name, cause := range errorCauses {
			if errors.Is(err, cause) {
				r.Causes = append(r.Causes, name)
			}
		}
	}
	encoded, err := wire.Encode(r)
	if err != nil {
		return err
	}
	for _, part := range [][]byte{line, encoded} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// ReadResult reads the output of WriteResult. It copies the secrets only to locked memory.
func ReadResult(output io.Reader) (*LockedSet, error) {
	arena, size, err := readToArena(output)
	if err != nil {
		return nil, err
	}
	set, err := parseResult(arena, size)
	if err != nil {
		arena.Free()
		return nil, err
	}
	return set, nil
}

// readToArena reads everything from r. It returns the number of bytes.
func readToArena(r io.Reader) (arena *secmem.Arena, size int, err error) {
	arena, err = secmem.New(1)
	for err == nil {
		if size == len(arena.Bytes()) {
			old := arena
			if arena, err = secmem.New(2 * size); err != nil {
				old.Free()
				return nil, 0, err
			}
			copy(arena.Bytes(), old.Bytes())
			old.Free()
		}
		var n int
		n, err = r.Read(arena.Bytes()[size:])
		size += n
	}
	if err == io.EOF {
		return arena, size, nil
	}
	if arena != nil {
		arena.Free()
	}
	return nil, 0, fmt.Errorf("cannot read the secrets into locked memory: %w", err)
}

// parseResult parses the output of WriteResult, which is in the first size bytes of arena.
// The returned set owns the arena.
func parseResult(arena *secmem.Arena, size int) (*LockedSet, error) {
	lineSize := bytes.IndexByte(arena.Bytes()[:size], '\n') + 1
	encoded, complete := bytes.CutSuffix(arena.Bytes()[lineSize:size], []byte("\n"))
	if lineSize == 0 || !complete {
		return nil, errIncomplete
	}
	var r result
	if err := wire.Decode(encoded, &r, 2); err != nil {
		return nil, fmt.Errorf("cannot decode the result: %w", err)
	}
	if lineSize == 1 {
		failure := &childError{text: string(r.Error)}
		for _, name := range r.Causes {
			failure.causes = append(failure.causes, errorCauses[name])
		}
		return nil, failure
	}
	arena.TrimTo(lineSize)
	return &LockedSet{arena, arena.Bytes()[:lineSize], r.Names}, nil
}
