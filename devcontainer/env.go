package devcontainer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// maxEntrySize is the longest NAME=value the kernel passes on (execve(2):
// MAX_ARG_STRLEN is 32 pages, the terminating NUL included).
const maxEntrySize = 131071

// ErrVariableValue means that a value cannot be put into the environment, only into a
// file.
var ErrVariableValue = errors.New("no environment variable can hold it")

// ErrVariableName means that a name cannot name an environment variable, or that two
// secrets have the same variable.
var ErrVariableName = errors.New("it cannot name an environment variable of its own")

// Variables maps secrets to the environment variables that they go into.
type Variables map[schema.SecretName]string

// AssignVariables decides which secrets go into which variables: those named in only,
// or all that the project may have. The manifest that was approved gives the
// variables' names and leaves out secrets that are files, unless they are in
// only.
func AssignVariables(info schema.InfoResponse, only []schema.SecretName) (Variables, error) {
	names := info.Allowlist
	if only != nil {
		names = only
	}
	variables, secretOf := Variables{}, map[string]schema.SecretName{}
	for _, name := range names {
		variable := string(name)
		if injection := info.Secrets[name]; injection != nil {
			if injection.As == schema.InjectAsFile && only == nil {
				continue
			}
			if injection.As == schema.InjectAsEnv {
				variable = injection.Env
			}
		}
		if !isVariableName(variable) {
			return nil, fmt.Errorf("%s: %w", name, ErrVariableName)
		}
		if other, found := secretOf[variable]; found && other != name {
			return nil, fmt.Errorf("%s and %s both go into the variable %s: %w", other, name, variable, ErrVariableName)
		}
		variables[name], secretOf[variable] = variable, name
	}
	return variables, nil
}

// isVariableName reports whether every shell accepts name as a variable.
func isVariableName(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// SecretNames returns the secrets, sorted by name.
func (v Variables) SecretNames() []schema.SecretName { return slices.Sorted(maps.Keys(v)) }

// Entries returns NAME=value for each variable, sorted by the secret's name. Each secret
// must be in values.
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
			return nil, fmt.Errorf("%s holds a NUL byte: %w", name, ErrVariableValue)
		case len(entry) > maxEntrySize:
			return nil, fmt.Errorf("%s is too long for an environment variable, which takes %d bytes: %w", name, maxEntrySize, ErrVariableValue)
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// Environment returns base with the variables added, and without those they replace.
func (v Variables) Environment(values map[schema.SecretName]schema.SecretValue, base []string) ([]string, error) {
	entries, err := v.Entries(values)
	if err != nil {
		return nil, err
	}
	return append(withoutVariables(base, v), entries...), nil
}

// pristineVariables are the variables that PristineEnvironment keeps: the user, the
// place, the terminal and the language.
var pristineVariables = []string{"HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TZ", "USER"}

// PristineEnvironment returns those entries of base that are in pristineVariables.
func PristineEnvironment(base []string) []string {
	var kept []string
	for _, entry := range base {
		if name, _, _ := strings.Cut(entry, "="); slices.Contains(pristineVariables, name) {
			kept = append(kept, entry)
		}
	}
	return kept
}

// withoutVariables removes variables that are about to be set: which of two a program
// sees is up to the program.
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
