package project

import (
	"slices"

	"github.com/keyhatch/keyhatch/schema"
)

// versions maps each allowed secret that is loaded to the generation that changed
// its value last. They are only numbers: a watch keeps neither a value nor anything
// derived from one.
type versions map[schema.SecretName]uint64

// changedNames returns the names that were added, removed, or changed since v,
// sorted.
func (v versions) changedNames(current versions) []schema.SecretName {
	var names []schema.SecretName
	for name, since := range current {
		if v[name] != since {
			names = append(names, name)
		}
	}
	for name := range v {
		if _, ok := current[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
