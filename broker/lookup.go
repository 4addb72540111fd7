package broker

import (
	"fmt"
	"net"
	"strconv"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// A lookup is what a request's names came to in one snapshot.
type lookup struct {
	snapshot *snapshot // nil: nothing is loaded
	each     []result
}

// A result is what one name came to: a secret, or the code of why not.
type result struct {
	name   schema.SecretName
	code   schema.Code // "" where there is a secret
	secret secret
}

// lookup is the gate. The allowlist is asked first, and a name that is not on
// it is never looked for, so its answer cannot depend on what there is.
func (p *project) lookup(snap *snapshot, names []schema.SecretName) lookup {
	allowlist := p.manifest.Load()
	if names == nil {
		names = allowlist.Allowlist()
	}
	found := lookup{snap, make([]result, len(names))}
	for i, name := range names {
		one := result{name: name}
		switch {
		case !allowlist.Allows(name):
			one.code = schema.CodeDenied
		case snap == nil:
			one.code = schema.CodeNotLoaded
		default:
			var ok bool
			if one.secret, ok = snap.secrets[name]; !ok {
				one.code = schema.CodeNotFound
			}
		}
		found.each[i] = one
	}
	return found
}

// complete reports whether waiting could bring nothing more.
func (l lookup) complete() bool {
	for _, one := range l.each {
		if one.code != "" && one.code != schema.CodeDenied {
			return false
		}
	}
	return true
}

// message says why there is no secret. Beside the name it is a constant.
func (r result) message() string {
	switch r.code {
	case schema.CodeDenied:
		return fmt.Sprintf("%s is not on this project's allowlist", r.name)
	case schema.CodeNotLoaded:
		return fmt.Sprintf("no secrets are loaded yet, so there is no %s", r.name)
	}
	return fmt.Sprintf("no secret is named %s", r.name)
}

// parts are the fields of a secret as it is answered (schema.SecretValue),
// with its bytes where they lie.
func (r result) parts(snap *snapshot) net.Buffers {
	value := snap.bytes(r.secret)
	switch r.secret.kind {
	case binarySecret:
		return net.Buffers{[]byte(`"value_b64":`), value}
	case bundleSecret:
		return net.Buffers{[]byte(`"value":`), value, []byte(`,"bundle":true`)}
	}
	return net.Buffers{[]byte(`"value":`), value}
}

// manyParts is a schema.GetManyResponse with the secrets' bytes where they lie.
// Names are written bare between quotes: they are valid names.
func manyParts(found lookup) net.Buffers {
	generation := uint64(0)
	if found.snapshot != nil {
		generation = found.snapshot.generation
	}
	text := strconv.AppendUint([]byte(`{"ok":true,"generation":`), generation, 10)
	text = append(text, `,"secrets":{`...)
	var parts net.Buffers
	first := true
	for _, one := range found.each {
		if one.code != "" {
			continue
		}
		if !first {
			text = append(text, ',')
		}
		first = false
		text = append(append(append(text, '"'), one.name...), `":{`...)
		parts = append(append(parts, text), one.parts(found.snapshot)...)
		text = []byte{'}'}
	}
	text = append(text, `},"errors":`...)
	failures := map[schema.SecretName]schema.SecretError{}
	for _, one := range found.each {
		if one.code != "" {
			failures[one.name] = schema.SecretError{Code: one.code, Message: one.message()}
		}
	}
	encoded, err := wire.Encode(failures)
	if err != nil { // names and constants can be encoded
		encoded = []byte("{}\n")
	}
	text = append(text, encoded[:len(encoded)-1]...)
	return append(parts, append(text, "}\n"...))
}
