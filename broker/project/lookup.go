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

// A lookup contains the results for all names of one request. All values come from one
// snapshot.
type lookup struct {
	snapshot *keyring.Snapshot // nil if no secrets are loaded
	results  []result
}

// A result is the result for one name. It contains the value of the secret, or the code
// of the refusal.
type result struct {
	name  schema.SecretName
	code  schema.Code // "" if the secret was found
	value keyring.Value
}

// lookUp checks names against the allowlist, and looks up the allowed names in the
// snapshot. It never looks up a name that is not on the allowlist, so the answer for such
// a name cannot depend on the secrets that exist. If names is nil, lookUp looks up the
// whole allowlist. The returned lookup owns the reference to the snapshot.
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

// isComplete reports whether every allowed name was found. If so, the request need not
// wait for a push.
func (l lookup) isComplete() bool {
	for _, r := range l.results {
		if r.code == schema.CodeNotLoaded || r.code == schema.CodeNotFound {
			return false
		}
	}
	return true
}

// outcomes contains the number of names for each outcome of a lookup.
type outcomes struct{ allowed, denied, notFound, notLoaded int }

func (l lookup) countOutcomes() (counts outcomes) {
	for _, r := range l.results {
		switch r.code {
		case "":
			counts.allowed++
		case schema.CodeDenied:
			counts.denied++
		case schema.CodeNotFound:
			counts.notFound++
		case schema.CodeNotLoaded:
			counts.notLoaded++
		}
	}
	return counts
}

// message returns a text that explains why the name was refused. The text contains the
// name, but no other data.
func (r result) message() string {
	switch r.code {
	case schema.CodeDenied:
		return fmt.Sprintf("%s is not on this project's allowlist", r.name)
	case schema.CodeNotLoaded:
		return fmt.Sprintf("%s is not available: the broker has no secrets yet", r.name)
	}
	return fmt.Sprintf("the broker has no secret named %s", r.name)
}

// fields returns the JSON members that describe a secret in a response
// (schema.SecretValue). It does not copy the value, because the value is sent directly
// from the snapshot's memory.
func (r result) fields() net.Buffers {
	switch r.value.Kind {
	case keyring.Binary:
		return net.Buffers{[]byte(`"value_b64":`), r.value.JSON}
	case keyring.Bundle:
		return net.Buffers{[]byte(`"value":`), r.value.JSON, []byte(`,"bundle":true`)}
	}
	return net.Buffers{[]byte(`"value":`), r.value.JSON}
}

// getResponse returns an encoded schema.GetResponse. The lookup must contain exactly one
// result, and the result must be a secret.
func (l lookup) getResponse() net.Buffers {
	pieces := append(net.Buffers{[]byte(`{"ok":true,`)}, l.results[0].fields()...)
	return append(pieces, []byte("}\n"))
}

// getManyResponse returns an encoded schema.GetManyResponse with all secrets and
// refusals. It does not escape names, because a valid name contains no character that
// needs an escape.
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
	// This error cannot happen, because valid names and constant texts can always be encoded.
	if err != nil {
		encoded = []byte("{}\n")
	}
	text = append(text, encoded[:len(encoded)-1]...)
	return append(pieces, append(text, "}\n"...))
}
