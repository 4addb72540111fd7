// Package devcontainer is keyhatch inside a project container: it fetches what
// the project may have and hands it to the programs there.
//
// It runs next to hostile code and trusts only the socket it is given. The
// project's tree is that code's to write, so nothing is read there: the broker
// says what was approved, how secrets are injected included.
package devcontainer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
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

// Missing says which secrets a command needs and cannot have.
type Missing struct {
	// Why is sorted by name.
	Why []MissingSecret
}

// A MissingSecret is one of them, with the broker's reason.
type MissingSecret struct {
	Name schema.SecretName
	schema.SecretError
}

func (m *Missing) Error() string {
	lines := make([]string, len(m.Why))
	for i, one := range m.Why {
		lines[i] = one.Message
	}
	return strings.Join(lines, "; ")
}

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

// Fetch fetches secrets, all of one snapshot. Where one cannot be had it returns
// a *Missing that names them all, and nothing else.
func Fetch(ctx context.Context, project *client.Project, names []schema.SecretName, wait time.Duration) (map[schema.SecretName]schema.SecretValue, error) {
	if len(names) == 0 {
		return nil, nil // and not everything, which is what no names would ask for
	}
	names = slices.Sorted(slices.Values(names))
	answer, err := project.GetMany(ctx, slices.Compact(names), wait)
	if err != nil {
		return nil, err
	}
	missing := &Missing{}
	for _, name := range names {
		if _, ok := answer.Secrets[name]; ok {
			continue
		}
		why := answer.Errors[name]
		if why.Code == "" {
			return nil, fmt.Errorf("%w: %s is neither answered nor refused", client.ErrProtocol, name)
		}
		missing.Why = append(missing.Why, MissingSecret{name, why})
	}
	if len(missing.Why) > 0 {
		return nil, missing
	}
	return answer.Secrets, nil
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

// Bytes returns a secret as it is given to programs: the text, the decoded
// binary, or a bundle's JSON text.
func Bytes(value schema.SecretValue) ([]byte, error) {
	switch {
	case value.Value != nil:
		return []byte(*value.Value), nil
	case value.ValueB64 != nil:
		return value.ValueB64, nil
	}
	return nil, fmt.Errorf("%w: a secret without a value", client.ErrProtocol)
}
