// Package wire reads and writes the messages of keyhatch. The broker and all its clients use
// it. A message is one JSON object on one line. The package limits the size of a line, reads
// the line into memory that the calling package can provide, and decodes the line strictly.
//
// Other packages of the broker handle the values of secrets themselves, so that no value is
// copied. Package keyring decodes the values in a push request, and encodes the response to a
// get. Package project encodes the response to a get-many.
//
// Strict decoding means that the package refuses input that encoding/json accepts or
// repairs by default. Examples are invalid UTF-8, lone surrogates, duplicate names, names
// that differ from a field only in upper and lower case, and deep nesting. The package
// does not trust its input. Its errors never quote the input, because a line can be a
// push of secrets.
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

// An Error reports which rule a line violates. Its text is fixed, apart from the maximum
// depth or the name of a field of the Go type that Decode or Check was called with. The text
// never contains a part of the line.
type Error struct{ Rule string }

func (e *Error) Error() string { return e.Rule }

// Encode returns v as one line of JSON, including the newline. It sorts the members of maps by
// name. It fails if a text in v is not valid UTF-8.
func Encode(v any) ([]byte, error) {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// Decode checks that line is one JSON object with at most depth levels, and stores its
// fields in v. v is a pointer to a struct. Decode ignores fields that v does not have,
// after it has checked their syntax. Every error is an *Error.
func Decode(line []byte, v any, depth int) error {
	if err := Check(line, v, depth); err != nil {
		return err
	}
	err := json.Unmarshal(line, v)
	if err == nil {
		return nil
	}
	// Check has accepted the line, so decoding can fail only because a field has the wrong type
	// or is out of range. Put the name of this field into the error only if v has such a field.
	// Any other name comes from the input, and could be a part of a secret.
	if wrong, ok := errors.AsType[*json.SemanticError](err); ok {
		field := strings.SplitN(string(wrong.JSONPointer), "/", 3)
		if len(field) > 1 && slices.Contains(fieldNames(reflect.TypeOf(v).Elem()), field[1]) {
			return &Error{fmt.Sprintf("field %q has the wrong type or is out of range", field[1])}
		}
	}
	return &Error{"a field has the wrong type or is out of range"}
}

// Check makes the same checks as Decode, except that it does not check the types and ranges of
// the values. It uses v only for the names of the fields, and stores nothing in v. Check can copy
// names from line, but never a value.
func Check(line []byte, v any, depth int) error {
	fields := fieldNames(reflect.TypeOf(v).Elem())
	d := jsontext.NewDecoder(bytes.NewBuffer(line))
	if d.PeekKind() != jsontext.KindBeginObject {
		return &Error{"the line is not a JSON object"}
	}
	for {
		// At depth 1, the next token is a name if the number of tokens so far is even.
		_, length := d.StackIndex(d.StackDepth())
		isName := d.StackDepth() == 1 && length%2 == 0
		token, err := d.ReadToken()
		if err != nil {
			return syntaxError(err)
		}
		if d.StackDepth() > depth {
			return &Error{fmt.Sprintf("the JSON nesting is deeper than %d levels", depth)}
		}
		if isName && token.Kind() == jsontext.KindString {
			name := token.String()
			for _, field := range fields {
				if name != field && strings.EqualFold(name, field) {
					return &Error{fmt.Sprintf("a field name differs from %q only in upper and lower case", field)}
				}
			}
		}
		if d.StackDepth() == 0 {
			break
		}
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return &Error{"unexpected data after the JSON object"}
	}
	return nil
}

// syntaxError replaces an error of the parser, because the text of the parser's error can quote
// the input.
func syntaxError(err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return &Error{"duplicate name in an object"}
	}
	return &Error{"the line is not valid JSON in UTF-8"}
}

// fieldNames returns the JSON names of a struct's fields, including those of
// embedded structs.
func fieldNames(t reflect.Type) []string {
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}
