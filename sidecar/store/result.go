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
	"syscall"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// A result is what a child process reports about its read of a store. It contains no value of
// a secret. The child process first writes the line of the push request, which is empty after
// an error. It then writes the result as one line of JSON.
//
// The input of the child process is the result of the previous read, in the same form. If there was no
// previous read, the line in the input is empty.
type result struct {
	Names    []schema.SecretName `json:"names"`
	Files    []fileResult        `json:"files"`
	Unusable []unusableResult    `json:"unusable"`
	PEM      []pemResult         `json:"pem"`
	Dirs     []dirResult         `json:"dirs"`
	Error    []byte              `json:"error"`  // an error can contain the name of a file, which need not be valid UTF-8
	Causes   []string            `json:"causes"` // keys of errorCauses
}

// resultDepth is the maximum nesting depth of a result in JSON.
const resultDepth = 5

// A fileResult is the part of a State that describes a file that was read.
type fileResult struct {
	Path  []byte    `json:"path"` // need not be valid UTF-8
	State fileState `json:"state"`
}

// An unusableResult is the part of a State that describes a file that could not be used.
type unusableResult struct {
	Path   []byte `json:"path"`
	Reason []byte `json:"reason"` // can contain a path
}

// A pemResult is the part of a State that describes a PEM text.
type pemResult struct {
	Path    []byte     `json:"path"`
	Problem PEMProblem `json:"problem"`
}

// A dirResult is the part of a State that describes the directory of a Dir, or a store of a Merged.
type dirResult struct {
	Path  []byte   `json:"path"`
	State dirState `json:"state"`
}

func newResult(names []schema.SecretName, s State) result {
	r := result{Names: names}
	for path, state := range s.files {
		r.Files = append(r.Files, fileResult{[]byte(path), state})
	}
	for path, reason := range s.Unusable {
		r.Unusable = append(r.Unusable, unusableResult{[]byte(path), []byte(reason)})
	}
	for path, problem := range s.PEMProblems {
		r.PEM = append(r.PEM, pemResult{[]byte(path), problem})
	}
	for path, state := range s.dirs {
		r.Dirs = append(r.Dirs, dirResult{[]byte(path), state})
	}
	return r
}

func (r result) state() State {
	s := newState()
	for _, f := range r.Files {
		s.files[string(f.Path)] = f.State
	}
	for _, f := range r.Unusable {
		s.Unusable[string(f.Path)] = Reason(f.Reason)
	}
	for _, p := range r.PEM {
		s.PEMProblems[string(p.Path)] = p.Problem
	}
	for _, d := range r.Dirs {
		s.dirs[string(d.Path)] = d.State
	}
	return s
}

// write writes the line of the push request and the result.
func (r result) write(w io.Writer, line []byte) error {
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

// parseResult parses the output of write. line is a slice of content.
func parseResult(content []byte) (line []byte, r result, err error) {
	lineSize := bytes.IndexByte(content, '\n') + 1
	encoded, complete := bytes.CutSuffix(content[lineSize:], []byte("\n"))
	if lineSize == 0 || !complete {
		return nil, result{}, errIncomplete
	}
	if err := wire.Decode(encoded, &r, resultDepth); err != nil {
		return nil, result{}, fmt.Errorf("cannot decode the result of a read of the store: %w", err)
	}
	return content[:lineSize], r, nil
}

// emptyLine replaces the line of the push request if there is no set.
const emptyLine = "\n"

// errorCauses contains the errors of Read that can be distinguished with errors.Is.
var errorCauses = map[string]error{
	"unstable":   ErrUnstable,
	"replaced":   ErrReplaced,
	"command":    ErrCommand,
	"too_large":  ErrTooLarge,
	"not_exist":  fs.ErrNotExist,
	"permission": fs.ErrPermission,
	"not_dir":    syscall.ENOTDIR,
}

// A childError is an error of the child process that read the store.
type childError struct {
	text   string
	causes []error
}

func (e *childError) Error() string   { return e.text }
func (e *childError) Unwrap() []error { return e.causes }

// errIncomplete means that a process ended before it had written its complete result.
var errIncomplete = errors.New("the result of a read of the store is incomplete")

// Write writes r as the input of WriteResult. r can be empty. Write copies the secrets only
// to w.
func (r LockedReading) Write(w io.Writer) error {
	if r.Set == nil {
		return result{}.write(w, []byte(emptyLine))
	}
	return newResult(r.Set.names, r.State).write(w, r.Set.line)
}

// WriteResult reads a store and writes the result to w. If it cannot read the store, the
// result contains the error. input contains the result of the previous read (see
// LockedReading.Write). WriteResult itself returns an error only if it cannot read input or
// cannot write to w.
//
// WriteResult leaves copies of the secrets in the memory of the process. So the process must
// end soon after WriteResult returns.
func WriteResult(ctx context.Context, source Store, input io.Reader, w io.Writer) error {
	previous, err := readPrevious(input)
	if err != nil {
		return fmt.Errorf("cannot read the result of the previous read of the store: %w", err)
	}
	reading, err := source.Read(ctx, previous)
	var line []byte
	if err == nil {
		line, err = reading.Set.EncodePush()
	}
	if err != nil {
		r := result{Error: []byte(err.Error())}
		for name, cause := range errorCauses {
			if errors.Is(err, cause) {
				r.Causes = append(r.Causes, name)
			}
		}
		return r.write(w, []byte(emptyLine))
	}
	return newResult(slices.Sorted(maps.Keys(reading.Set)), reading.State).write(w, line)
}

// readPrevious reads the result of the previous read. Its Set is nil if there was no previous
// read.
func readPrevious(input io.Reader) (*Reading, error) {
	content, err := io.ReadAll(input)
	if err != nil {
		return nil, err
	}
	line, r, err := parseResult(content)
	if err != nil || string(line) == emptyLine {
		return &Reading{}, err
	}
	set, err := decodePush(line)
	return &Reading{set, r.state()}, err
}

// decodePush returns the set that EncodePush has encoded.
func decodePush(line []byte) (Set, error) {
	var request struct {
		Secrets    jsontext.Value               `json:"secrets"`
		SecretsB64 map[schema.SecretName][]byte `json:"secrets_b64"`
	}
	if err := wire.Decode(line, &request, 3); err != nil {
		return nil, err
	}
	set, err := parseJSON(request.Secrets)
	if err != nil {
		return nil, err
	}
	for name, value := range request.SecretsB64 {
		set[name] = Value{Bytes: value, Binary: true}
	}
	return set, nil
}

// ReadResult reads the output of WriteResult. It copies the secrets only to locked memory.
func ReadResult(output io.Reader) (LockedReading, error) {
	arena, size, err := readToArena(output)
	if err != nil {
		return LockedReading{}, err
	}
	line, r, err := parseResult(arena.Bytes()[:size])
	if err == nil && string(line) == emptyLine {
		failure := &childError{text: string(r.Error)}
		for _, name := range r.Causes {
			failure.causes = append(failure.causes, errorCauses[name])
		}
		err = failure
	}
	if err != nil {
		arena.Free()
		return LockedReading{}, err
	}
	arena.TrimTo(len(line))
	return LockedReading{&LockedSet{arena, arena.Bytes()[:len(line)], r.Names}, r.state()}, nil
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
