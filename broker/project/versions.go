package project

import (
	"slices"

	"github.com/keyhatch/keyhatch/schema"
)

// versions maps the name of each allowed secret that is loaded to the generation of the last push
// that added or changed the secret. A watch compares only these numbers. Therefore a watch stores
// no values, and no data that is computed from values.
type versions map[schema.SecretName]uint64

// changedNames returns the sorted names of the secrets that were added, removed, or
// changed between v and current.
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
