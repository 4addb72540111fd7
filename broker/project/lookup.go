package project

import (
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/keyring"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// A lookup contains the results for all names of one request. All values come from one
// snapshot.
type lookup struct {
	snapshot *keyring.Snapshot  // nil if no secrets are loaded
	approved *manifest.Manifest // the manifest with the allowlist that was checked
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
// whole allowlist. The results are appended to results, which must be empty. The returned
// lookup owns the reference to the snapshot.
func lookUp(approved *manifest.Manifest, snapshot *keyring.Snapshot, names []schema.SecretName, results []result) lookup {
	if names == nil {
		names = approved.Allowlist()
	}
	results = slices.Grow(results, len(names))
	for _, name := range names {
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
		results = append(results, r)
	}
	return lookup{snapshot, approved, results}
}

func (l lookup) release() { l.snapshot.Release() }

// isComplete reports whether every allowed name was found. Only a request with an allowed name
// that was not found waits for a push.
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

// message explains why the name of the result was refused. r.code must not be empty. The message
// contains the name, but no other data.
func (r result) message() string {
	switch r.code {
	case schema.CodeDenied:
		return fmt.Sprintf("%s is not on this project's allowlist", r.name)
	case schema.CodeNotLoaded:
		return fmt.Sprintf("%s is not available: the broker has no secrets", r.name)
	}
	return fmt.Sprintf("the broker has no secret named %s", r.name)
}

// holdSnapshot makes a reply release the snapshot of the lookup after the reply was written, or
// after the write has failed. While the write waits for the client, it fails if the snapshot
// expires.
func (l lookup) holdSnapshot(reply endpoint.Reply) endpoint.Reply {
	if l.snapshot != nil {
		reply.Release, reply.Expired = l.snapshot.Lease()
	}
	return reply
}

// getManyResponse returns an encoded schema.GetManyResponse with all secrets and
// refusals. The values are not copied. They are sent directly from the snapshot's memory.
// getManyResponse does not escape names, because a valid name contains no character that
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
		pieces = append(pieces, text, r.value.Fields())
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
