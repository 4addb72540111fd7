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

// An outcome is the outcome of a lookup of one name.
type outcome int

const (
	denied    outcome = iota // the name is not on the allowlist
	notFound                 // the name is on the allowlist, but there is no such secret
	notLoaded                // the name is on the allowlist, but no secrets are loaded
	allowed                  // the name is on the allowlist, and the secret was found
	numOutcomes
)

// code returns the code of the refusal. For the outcome allowed, there is no code.
func (o outcome) code() schema.Code {
	switch o {
	case denied:
		return schema.CodeDenied
	case notLoaded:
		return schema.CodeNotLoaded
	}
	return schema.CodeNotFound
}

// A lookup contains the names of one request and the results for these names. All values come
// from one snapshot. Before lookUp is called, the results contain only the names.
type lookup struct {
	wholeAllowlist bool               // look up all names on the allowlist; lookUp then replaces the results
	snapshot       *keyring.Snapshot  // nil if no secrets are loaded
	approved       *manifest.Manifest // the manifest with the allowlist that was checked
	results        []result
}

// A result is the result for one name.
type result struct {
	name    schema.SecretName
	outcome outcome
	value   keyring.Value // valid only if the outcome is allowed
}

// emptyResults returns results that contain only the names.
func emptyResults(names []schema.SecretName) []result {
	results := make([]result, len(names))
	for i, name := range names {
		results[i].name = name
	}
	return results
}

// lookUp checks the names against the allowlist, and looks up the allowed names in the
// snapshot. It never looks up a name that is not on the allowlist, so the answer for such
// a name cannot depend on the secrets that exist. The lookup then owns the reference to the
// snapshot.
func (l *lookup) lookUp(approved *manifest.Manifest, snapshot *keyring.Snapshot) {
	l.approved, l.snapshot = approved, snapshot
	if l.wholeAllowlist {
		l.results = emptyResults(approved.Allowlist())
	}
	for i := range l.results {
		r := &l.results[i]
		*r = result{name: r.name, outcome: denied} // removes the value of an earlier lookup
		if !approved.Allows(r.name) {
			continue
		}
		if snapshot == nil {
			r.outcome = notLoaded
		} else if value, ok := snapshot.Lookup(r.name); ok {
			r.outcome, r.value = allowed, value
		} else {
			r.outcome = notFound
		}
	}
}

func (l *lookup) release() { l.snapshot.Release() }

// isComplete reports whether every allowed name was found. Only a request with an allowed name
// that was not found waits for a push.
func (l *lookup) isComplete() bool {
	counts := l.countOutcomes()
	return counts[notFound] == 0 && counts[notLoaded] == 0
}

// outcomes contains the number of names for each outcome.
type outcomes [numOutcomes]int

func (l *lookup) countOutcomes() (counts outcomes) {
	for i := range l.results {
		counts[l.results[i].outcome]++
	}
	return counts
}

// message explains why the name of the result was refused. The outcome must not be allowed. The
// message contains the name, but no other data.
func (r *result) message() string {
	switch r.outcome {
	case denied:
		return fmt.Sprintf("%s is not on this project's allowlist", r.name)
	case notLoaded:
		return fmt.Sprintf("%s is not available: the broker has no secrets", r.name)
	}
	return fmt.Sprintf("the broker has no secret named %s", r.name)
}

// getManyResponse returns an encoded schema.GetManyResponse with all secrets and
// refusals. The values are not copied. They are sent directly from the snapshot's memory.
// getManyResponse does not escape names, because a valid name contains no character that
// needs an escape.
func (l *lookup) getManyResponse() net.Buffers {
	text := strconv.AppendUint([]byte(`{"ok":true,"generation":`), l.snapshot.Generation(), 10)
	text = append(text, `,"secrets":{`...)
	var pieces net.Buffers
	first := true
	for _, r := range l.results {
		if r.outcome != allowed {
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
		if r.outcome != allowed {
			refusals[r.name] = schema.SecretError{Code: r.outcome.code(), Message: r.message()}
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
