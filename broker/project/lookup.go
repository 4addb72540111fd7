package project

import (
	"fmt"
	"net"
	"strconv"

	"github.com/keyhatch/keyhatch/broker/keyring"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// A lookup is the outcome of a request for secrets, in one snapshot.
type lookup struct {
	snapshot *keyring.Snapshot // nil if no secrets are loaded
	results  []result
}

// A result is the outcome for one name: a secret, or the code of the refusal.
type result struct {
	name  schema.SecretName
	code  schema.Code // "" if there is a secret
	value keyring.Value
}

// lookUp is the allowlist check. A name that is not on the allowlist is never
// looked up, so the answer for it cannot depend on the secrets that exist. If
// names is nil, it looks up the whole allowlist. The lookup takes over the
// snapshot.
func lookUp(approved *manifest.Manifest, snapshot *keyring.Snapshot, names []schema.SecretName) lookup {
	if names == nil {
		names = approved.Allowlist()
	}
	found := lookup{snapshot, make([]result, len(names))}
	for i, name := range names {
		r := result{name: name}
		switch {
		case !approved.Allows(name):
			r.code = schema.CodeDenied
		case snapshot == nil:
			r.code = schema.CodeNotLoaded
		default:
			var ok bool
			if r.value, ok = snapshot.Lookup(name); !ok {
				r.code = schema.CodeNotFound
			}
		}
		found.results[i] = r
	}
	return found
}

func (l lookup) release() { l.snapshot.Release() }

// isComplete reports whether waiting could not find more secrets.
func (l lookup) isComplete() bool {
	for _, r := range l.results {
		if r.code == schema.CodeNotLoaded || r.code == schema.CodeNotFound {
			return false
		}
	}
	return true
}

// countOutcomes returns how many names have each outcome.
func (l lookup) countOutcomes() (allowed, denied, notFound, notLoaded int) {
	for _, r := range l.results {
		switch r.code {
		case "":
			allowed++
		case schema.CodeDenied:
			denied++
		case schema.CodeNotFound:
			notFound++
		case schema.CodeNotLoaded:
			notLoaded++
		}
	}
	return allowed, denied, notFound, notLoaded
}

// message explains a refusal. It contains nothing except the name.
func (r result) message() string {
	switch r.code {
	case schema.CodeDenied:
		return fmt.Sprintf("%s is not on this project's allowlist", r.name)
	case schema.CodeNotLoaded:
		return fmt.Sprintf("%s is not available: the broker has no secrets yet", r.name)
	}
	return fmt.Sprintf("the broker has no secret named %s", r.name)
}

// fields returns the fields of a secret in a response (schema.SecretValue). The
// value itself is not copied: it is sent from the snapshot's memory.
func (r result) fields() net.Buffers {
	switch r.value.Kind {
	case keyring.Binary:
		return net.Buffers{[]byte(`"value_b64":`), r.value.JSON}
	case keyring.Bundle:
		return net.Buffers{[]byte(`"value":`), r.value.JSON, []byte(`,"bundle":true`)}
	}
	return net.Buffers{[]byte(`"value":`), r.value.JSON}
}

// getResponse returns the schema.GetResponse with the only secret of the lookup.
func (l lookup) getResponse() net.Buffers {
	pieces := append(net.Buffers{[]byte(`{"ok":true,`)}, l.results[0].fields()...)
	return append(pieces, []byte("}\n"))
}

// getManyResponse returns the schema.GetManyResponse with all secrets and
// refusals. Names need no escapes, because they are valid names.
func (l lookup) getManyResponse() net.Buffers {
	text := strconv.AppendUint([]byte(`{"ok":true,"generation":`), l.snapshot.Generation(), 10)
	text = append(text, `,"secrets":{`...)
	var pieces net.Buffers
	first := true
	for _, r := range l.results {
		if r.code != "" {
			continue
		}
		if !first {
			text = append(text, ',')
		}
		first = false
		text = append(append(append(text, '"'), r.name...), `":{`...)
		pieces = append(append(pieces, text), r.fields()...)
		text = []byte{'}'}
	}
	text = append(text, `},"errors":`...)
	refusals := map[schema.SecretName]schema.SecretError{}
	for _, r := range l.results {
		if r.code != "" {
			refusals[r.name] = schema.SecretError{Code: r.code, Message: r.message()}
		}
	}
	encoded, err := wire.Encode(refusals)
	if err != nil { // impossible for names and constants
		encoded = []byte("{}\n")
	}
	text = append(text, encoded[:len(encoded)-1]...)
	return append(pieces, append(text, "}\n"...))
}
