package devcontainer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// maxEntrySize is the maximum size of a NAME=value string in bytes, without the final NUL
// byte. The kernel allows 32 pages of 4 KiB with the NUL byte (execve(2), MAX_ARG_STRLEN).
const maxEntrySize = 131071

// ErrVariableValue means that an environment variable cannot contain the value of a secret.
// A file can contain the value.
var ErrVariableValue = errors.New("the secret cannot be put into an environment variable")

// ErrVariableName means that a secret cannot have an environment variable. The manifest
// declares the secret as a file, or the name is not a valid variable name, or another secret
// has the same variable.
var ErrVariableName = errors.New("cannot assign an environment variable")

// Variables maps each secret to the name of its environment variable.
type Variables map[schema.SecretName]string

// AssignVariables assigns a variable to each secret in only. If only is nil, it assigns a
// variable to each secret on the allowlist, except the secrets that the manifest declares as
// files. The approved manifest defines the names of the variables. All errors are
// ErrVariableName.
//
// If only contains a secret that the manifest declares as a file, AssignVariables returns an
// error, because the operator did not approve a variable for this secret. The name of such a
// secret can even be the name of a variable that no manifest can set, for example LD_PRELOAD.
func AssignVariables(info schema.InfoResponse, only []schema.SecretName) (Variables, error) {
	names := info.Allowlist
	if only != nil {
		names = only
	}
	variables, secretOf := Variables{}, map[string]schema.SecretName{}
	for _, name := range names {
		variable := string(name)
		if injection := info.Secrets[name]; injection != nil {
			if injection.As == schema.InjectAsFile {
				if only == nil {
					continue
				}
				return nil, fmt.Errorf("%w to %s: the manifest declares %s as a file", ErrVariableName, name, name)
			}
			variable = injection.Env
		}
		if !isVariableName(variable) {
			return nil, fmt.Errorf("%w to %s: %s is not a valid variable name", ErrVariableName, name, variable)
		}
		if other, found := secretOf[variable]; found && other != name {
			return nil, fmt.Errorf("%w to %s: the variable %s already belongs to %s", ErrVariableName, name, variable, other)
		}
		variables[name], secretOf[variable] = variable, name
	}
	return variables, nil
}

// isVariableName reports whether every shell accepts name as a variable name.
func isVariableName(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// SecretNames returns the sorted names of the secrets.
func (v Variables) SecretNames() []schema.SecretName { return slices.Sorted(maps.Keys(v)) }

// Entries returns one NAME=value string for each variable, sorted by the secret's name. values
// must contain every secret of v. If a variable cannot contain the value of a secret, Entries
// returns ErrVariableValue.
func (v Variables) Entries(values map[schema.SecretName]schema.SecretValue) ([]string, error) {
	var entries []string
	for _, name := range v.SecretNames() {
		text, err := ValueBytes(values[name])
		if err != nil {
			return nil, err
		}
		entry := v[name] + "=" + string(text)
		switch {
		case strings.IndexByte(entry, 0) >= 0:
			return nil, fmt.Errorf("%w: the value of %s contains a NUL byte", ErrVariableValue, name)
		case len(entry) > maxEntrySize:
			return nil, fmt.Errorf("%w: %s is too long: NAME=value may have at most %d bytes", ErrVariableValue, name, maxEntrySize)
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// Environment returns the entries of base, and the entries of the variables. It fails in the
// same cases as Entries. If base already contains one of the variables, the value of the
// secret replaces the old value.
func (v Variables) Environment(values map[schema.SecretName]schema.SecretValue, base []string) ([]string, error) {
	entries, err := v.Entries(values)
	if err != nil {
		return nil, err
	}
	return append(withoutVariables(base, v), entries...), nil
}

// pristineVariables are the variables that PristineEnvironment keeps. They describe the
// user, the search path, the terminal, the time zone, and the language.
var pristineVariables = []string{"HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TZ", "USER"}

// PristineEnvironment returns the entries of base whose names are in pristineVariables.
func PristineEnvironment(base []string) []string {
	var kept []string
	for _, entry := range base {
		if name, _, _ := strings.Cut(entry, "="); slices.Contains(pristineVariables, name) {
			kept = append(kept, entry)
		}
	}
	return kept
}

// withoutVariables returns the entries of base whose names are not in variables, so that no
// variable is in the environment twice. If a variable has two entries, some programs use the
// first entry and others use the last entry.
func withoutVariables(base []string, variables Variables) []string {
	replaced := map[string]bool{}
	for _, variable := range variables {
		replaced[variable] = true
	}
	kept := make([]string, 0, len(base)+len(variables))
	for _, entry := range base {
		if name, _, _ := strings.Cut(entry, "="); !replaced[name] {
			kept = append(kept, entry)
		}
	}
	return kept
}
