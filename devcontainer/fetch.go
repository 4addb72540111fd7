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

// MissingError lists the secrets that a command needs and cannot have.
type MissingError struct {
	// Secrets is sorted by name.
	Secrets []MissingSecret
}

// A MissingSecret is a secret that cannot be had, with the broker's reason.
type MissingSecret struct {
	Name schema.SecretName
	schema.SecretError
}

func (e *MissingError) Error() string {
	messages := make([]string, len(e.Secrets))
	for i, secret := range e.Secrets {
		messages[i] = secret.Message
	}
	return strings.Join(messages, "; ")
}

// Fetch fetches secrets, all of one snapshot. If secrets cannot be had, it
// returns no secret and a *MissingError that lists them all.
func Fetch(ctx context.Context, project *client.Project, names []schema.SecretName, wait time.Duration) (map[schema.SecretName]schema.SecretValue, error) {
	if len(names) == 0 {
		return nil, nil // and not everything, which is what no names would ask for
	}
	names = slices.Sorted(slices.Values(names))
	answer, err := project.GetMany(ctx, slices.Compact(names), wait)
	if err != nil {
		return nil, err
	}
	missing := &MissingError{}
	for _, name := range names {
		if _, ok := answer.Secrets[name]; ok {
			continue
		}
		reason := answer.Errors[name]
		if reason.Code == "" {
			return nil, fmt.Errorf("%w: %s is neither answered nor refused", client.ErrProtocol, name)
		}
		missing.Secrets = append(missing.Secrets, MissingSecret{name, reason})
	}
	if len(missing.Secrets) > 0 {
		return nil, missing
	}
	return answer.Secrets, nil
}

// ValueBytes returns a secret as it is given to programs: the text, the decoded
// binary, or a bundle's JSON text.
func ValueBytes(value schema.SecretValue) ([]byte, error) {
	switch {
	case value.Value != nil:
		return []byte(*value.Value), nil
	case value.ValueB64 != nil:
		return value.ValueB64, nil
	}
	return nil, fmt.Errorf("%w: a secret without a value", client.ErrProtocol)
}
