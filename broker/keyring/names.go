package keyring

import (
	"strings"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// A nameList contains the names of the secrets of a push. Most pushes have the same names as the
// previous push, so several snapshots can use the same nameList. Therefore a nameList must not
// change after the push was parsed.
type nameList struct {
	names []schema.SecretName
	index map[schema.SecretName]int // the index of each name in names
}

// newNameList returns the names of the secrets in the same order. It returns false if two names
// are equal.
func newNameList(secrets []wire.PushedSecret) (_ *nameList, ok bool) {
	// One string for all names causes less work for the garbage collector than one string for
	// each name.
	var joined strings.Builder
	for _, secret := range secrets {
		joined.Write(secret.Name)
	}
	rest := schema.SecretName(joined.String())
	l := &nameList{make([]schema.SecretName, 0, len(secrets)), make(map[schema.SecretName]int, len(secrets))}
	for _, secret := range secrets {
		l.add(rest[:len(secret.Name)])
		rest = rest[len(secret.Name):]
	}
	return l, len(l.index) == len(l.names)
}

func (l *nameList) add(name schema.SecretName) {
	l.index[name] = len(l.names)
	l.names = append(l.names, name)
}

// equals reports whether the secrets have exactly the names of the list, in the same order. For a
// nil list, it returns false.
func (l *nameList) equals(secrets []wire.PushedSecret) bool {
	if l == nil || len(l.names) != len(secrets) {
		return false
	}
	for i, name := range l.names {
		if string(secrets[i].Name) != string(name) {
			return false
		}
	}
	return true
}
