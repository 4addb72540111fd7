package devcontainer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

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
