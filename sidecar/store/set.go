package store

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// A Set contains all secrets of a store in ordinary memory. So the sidecar only uses Sets in
// short-lived child processes (see ChildReader). A successful Read never returns a nil Set,
// even if the store contains no secrets.
type Set map[schema.SecretName]Value

// A Value is the content of one secret. The content is a text, binary data, or a bundle
// of named texts.
type Value struct {
	Bytes []byte // nil for a bundle
	// If Binary is true, Bytes is pushed as base64, even if Bytes is valid UTF-8.
	Binary bool
	Fields map[schema.SecretName][]byte // nil if the value is not a bundle
}

// ErrTooLarge means that the secrets of a store do not fit into one push. The sidecar then pushes
// nothing, so the broker also keeps secrets that were removed from the store.
var ErrTooLarge = errors.New("the secrets are too large for one push")

// EncodePush returns the line of the request that pushes the set to a broker. The broker
// refuses the request if another sidecar is connected and has already pushed. The line ends
// with a newline. If the line without the newline has more than schema.MaxPush bytes,
// EncodePush returns an error. Equal sets have equal lines.
func (s Set) EncodePush() ([]byte, error) {
	request := schema.PushRequest{
		Op:         schema.OpPush,
		Exclusive:  true,
		Secrets:    map[schema.SecretName]schema.Value{},
		SecretsB64: map[schema.SecretName][]byte{},
	}
	for name, value := range s {
		switch {
		case value.Binary:
			request.SecretsB64[name] = value.Bytes
		case value.Fields != nil:
			fields := map[schema.SecretName]string{}
			for field, text := range value.Fields {
				fields[field] = string(text)
			}
			request.Secrets[name] = schema.Value{Fields: fields}
		default:
			request.Secrets[name] = schema.Value{Text: string(value.Bytes)}
		}
	}
	line, err := wire.Encode(request)
	if err != nil {
		// Do not return err, because its text could contain a part of a secret.
		return nil, errors.New("cannot encode the secrets")
	}
	if size := len(line) - 1; size > schema.MaxPush {
		clear(line)
		sizes := map[string]int64{}
		for name, value := range s {
			sizes[string(name)] = int64(len(value.Bytes))
			for _, text := range value.Fields {
				sizes[string(name)] += int64(len(text))
			}
		}
		return nil, fmt.Errorf("%w: the encoded secrets have %d bytes, but the maximum size of a push is %d bytes; the largest secrets are %s",
			ErrTooLarge, size, schema.MaxPush, largest(sizes))
	}
	return line, nil
}

// largest returns the names of the largest sizes, and these sizes.
func largest(sizes map[string]int64) string {
	names := slices.SortedFunc(maps.Keys(sizes), func(a, b string) int {
		return cmp.Or(cmp.Compare(sizes[b], sizes[a]), strings.Compare(a, b))
	})
	var texts []string
	for _, name := range names[:min(len(names), 3)] {
		unit := "bytes"
		if sizes[name] == 1 {
			unit = "byte"
		}
		texts = append(texts, fmt.Sprintf("%s (%d %s)", name, sizes[name], unit))
	}
	return strings.Join(texts, ", ")
}
