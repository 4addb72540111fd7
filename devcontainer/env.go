// Package devcontainer is keyhatch inside a project container: it fetches what
// the project may have and hands it to the programs there.
//
// It runs next to hostile code and trusts only the socket it is given. The
// manifest it may read lies in a tree that code can write, so it decides how a
// secret is named in the environment, never which one is fetched: that is the
// broker's gate.
package devcontainer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/manifest"
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
// all of the allowlist. A manifest, which may be nil, gives the variables' names
// and leaves out secrets that are files, unless they are in only.
func Choose(allowlist, only []schema.SecretName, m *manifest.Manifest) (Variables, error) {
	names := allowlist
	if only != nil {
		names = only
	}
	chosen, taken := Variables{}, map[string]schema.SecretName{}
	for _, name := range names {
		variable := string(name)
		if m != nil && m.Secrets[name] != nil {
			in := m.Secrets[name]
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

// Environment fetches the chosen secrets, all of one snapshot, and returns base
// with them in it. Where one cannot be had it returns a *Missing that names
// them all, and no environment.
func Environment(ctx context.Context, project *client.Project, chosen Variables, base []string, wait time.Duration) ([]string, error) {
	names := []schema.SecretName{} // not nil, which would ask for everything
	for name := range chosen {
		names = append(names, name)
	}
	slices.Sort(names)
	answer, err := project.GetMany(ctx, names, wait)
	if err != nil {
		return nil, err
	}
	missing := &Missing{}
	environment := without(base, chosen)
	for _, name := range names {
		value, ok := answer.Secrets[name]
		if !ok {
			why := answer.Errors[name]
			if why.Code == "" {
				return nil, fmt.Errorf("%w: %s is neither answered nor refused", client.ErrProtocol, name)
			}
			missing.Why = append(missing.Why, MissingSecret{name, why})
			continue
		}
		text, err := Bytes(value)
		if err != nil {
			return nil, err
		}
		variable := chosen[name] + "=" + string(text)
		switch {
		case strings.IndexByte(variable, 0) >= 0:
			return nil, fmt.Errorf("%s holds a NUL byte: %w", name, ErrNotForEnvironment)
		case len(variable) > maxVariable:
			return nil, fmt.Errorf("%s is too long for an environment variable, which takes %d bytes: %w", name, maxVariable, ErrNotForEnvironment)
		}
		environment = append(environment, variable)
	}
	if len(missing.Why) > 0 {
		return nil, missing
	}
	return environment, nil
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
