// Package wire is keyhatch's only framing code, used by both ends of every
// socket: one JSON object a line, size-capped, read into memory that the caller
// provides, and decoded strictly.
//
// Strict means what encoding/json by default is not: invalid UTF-8, lone
// surrogates, duplicate names, names that match a field but for case, trailing
// data and deep nesting are refused rather than repaired. The package trusts
// nothing it reads, and its errors never quote any of it: a line may be a push.
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// An Error says which rule a line breaks. Its text is a constant of this
// package, or names a field of the type that was decoded into; it holds
// nothing of the line.
type Error struct{ Rule string }

func (e *Error) Error() string { return e.Rule }

// Encode writes v as one line, newline included, and maps in order of their
// names.
func Encode(v any) ([]byte, error) {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// Decode checks that line is one JSON object that nests at most depth deep and
// stores its fields in v, a pointer to a struct. Fields that v does not have
// are ignored, once checked. Every error is an *Error.
func Decode(line []byte, v any, depth int) error {
	if err := Check(line, v, depth); err != nil {
		return err
	}
	err := json.Unmarshal(line, v)
	if err == nil {
		return nil
	}
	// check has read the whole line, so what is left is a field of another
	// type than v's. Where it is a field of v's own, its name can be said.
	if wrong, ok := errors.AsType[*json.SemanticError](err); ok {
		field := strings.SplitN(string(wrong.JSONPointer), "/", 3)
		if len(field) > 1 && slices.Contains(fieldNames(reflect.TypeOf(v).Elem()), field[1]) {
			return &Error{fmt.Sprintf("field %q has the wrong type or is out of range", field[1])}
		}
	}
	return &Error{"a field has the wrong type or is out of range"}
}

// Check checks line as Decode does, for v's type, but stores nothing, and
// copies nothing of line but its names.
func Check(line []byte, v any, depth int) error {
	fields := fieldNames(reflect.TypeOf(v).Elem())
	d := jsontext.NewDecoder(bytes.NewBuffer(line))
	if d.PeekKind() != jsontext.KindBeginObject {
		return &Error{"the line is not a JSON object"}
	}
	for {
		// At depth 1 an even number of tokens so far means that a name is next.
		_, length := d.StackIndex(d.StackDepth())
		isName := d.StackDepth() == 1 && length%2 == 0
		token, err := d.ReadToken()
		if err != nil {
			return syntaxError(err)
		}
		if d.StackDepth() > depth {
			return &Error{fmt.Sprintf("the line nests deeper than %d", depth)}
		}
		if isName && token.Kind() == jsontext.KindString {
			name := token.String()
			for _, field := range fields {
				if name != field && strings.EqualFold(name, field) {
					return &Error{fmt.Sprintf("field %q differs in case", field)}
				}
			}
		}
		if d.StackDepth() == 0 {
			break
		}
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return &Error{"there is data after the JSON object"}
	}
	return nil
}

// syntaxError turns a parser's error, whose text quotes its input, into a rule.
func syntaxError(err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return &Error{"a name stands twice in one object"}
	}
	return &Error{"the line is not valid JSON in UTF-8"}
}

// fieldNames returns the JSON names of a struct's fields, those of embedded
// structs included.
func fieldNames(t reflect.Type) []string {
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}
