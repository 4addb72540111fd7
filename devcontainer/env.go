package devcontainer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// maxVariable is the longest NAME=value the kernel passes on (execve(2):
// MAX_ARG_STRLEN is 32 pages, the terminating NUL included).
const maxVariable = 131071

// ErrNotForEnvironment says that a value cannot be put into the environment,
// only into a file.
var ErrNotForEnvironment = errors.New("no environment variable can hold it")

// ErrNotVariable says that a secret's name cannot name a variable, or not one
// of its own.
var ErrNotVariable = errors.New("it cannot name an environment variable of its own")

// Variables is a choice of secrets, and the environment variables they go into.
type Variables map[schema.SecretName]string

// Choose decides which secrets go into which variables: those named in only, or
// all that the project may have. The manifest that was approved gives the
// variables' names and leaves out secrets that are files, unless they are in
// only.
func Choose(info schema.InfoResponse, only []schema.SecretName) (Variables, error) {
	names := info.Allowlist
	if only != nil {
		names = only
	}
	chosen, taken := Variables{}, map[string]schema.SecretName{}
	for _, name := range names {
		variable := string(name)
		if in := info.Secrets[name]; in != nil {
			if in.As == schema.AsFile && only == nil {
				continue
			}
			if in.As == schema.AsEnv {
				variable = in.Env
			}
		}
		if !validVariable(variable) {
			return nil, fmt.Errorf("%s: %w", name, ErrNotVariable)
		}
		if other, twice := taken[variable]; twice && other != name {
			return nil, fmt.Errorf("%s and %s both go into the variable %s: %w", other, name, variable, ErrNotVariable)
		}
		chosen[name], taken[variable] = variable, name
	}
	return chosen, nil
}

func validVariable(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// Names are the secrets to fetch, sorted.
func (chosen Variables) Names() []schema.SecretName { return slices.Sorted(maps.Keys(chosen)) }

// Entries returns NAME=value for each of the chosen, in order of the secrets'
// names. Every one of them must be in values.
func (chosen Variables) Entries(values map[schema.SecretName]schema.SecretValue) ([]string, error) {
	var entries []string
	for _, name := range chosen.Names() {
		text, err := Bytes(values[name])
		if err != nil {
			return nil, err
		}
		entry := chosen[name] + "=" + string(text)
		switch {
		case strings.IndexByte(entry, 0) >= 0:
			return nil, fmt.Errorf("%s holds a NUL byte: %w", name, ErrNotForEnvironment)
		case len(entry) > maxVariable:
			return nil, fmt.Errorf("%s is too long for an environment variable, which takes %d bytes: %w", name, maxVariable, ErrNotForEnvironment)
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// Environment returns base with the chosen in it, and without what they replace.
func (chosen Variables) Environment(values map[schema.SecretName]schema.SecretValue, base []string) ([]string, error) {
	entries, err := chosen.Entries(values)
	if err != nil {
		return nil, err
	}
	return append(without(base, chosen), entries...), nil
}

// plain are the variables that Pristine keeps: who and where one is, and how the
// terminal and texts are.
var plain = []string{"HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TZ", "USER"}

// Pristine returns what base has of a small set of variables that tell nothing.
func Pristine(base []string) []string {
	var kept []string
	for _, entry := range base {
		if name, _, _ := strings.Cut(entry, "="); slices.Contains(plain, name) {
			kept = append(kept, entry)
		}
	}
	return kept
}

// without drops variables that are about to be set: which of two a program
// sees is up to the program.
func without(base []string, chosen Variables) []string {
	set := map[string]bool{}
	for _, variable := range chosen {
		set[variable] = true
	}
	rest := make([]string, 0, len(base)+len(chosen))
	for _, entry := range base {
		if name, _, _ := strings.Cut(entry, "="); !set[name] {
			rest = append(rest, entry)
		}
	}
	return rest
}
