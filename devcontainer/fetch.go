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

// MissingError means that the broker did not return all requested secrets, but returned a
// reason for each missing secret.
type MissingError struct {
	// Secrets lists the secrets that the broker did not return, sorted by name.
	Secrets []MissingSecret
}

// A MissingSecret is a secret that the broker did not return, with the broker's reason.
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

// Fetch fetches secrets from one snapshot. It waits for allowed secrets that do not exist yet,
// for at most wait. Fetch returns all secrets or an error. If the broker refuses a secret or does
// not have it, the error is a *MissingError.
func Fetch(ctx context.Context, project *client.Project, names []schema.SecretName, wait time.Duration) (map[schema.SecretName]schema.SecretValue, error) {
	if len(names) == 0 {
		return nil, nil // without a list of names, the broker would return all secrets on the allowlist
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
			return nil, fmt.Errorf("%w: the answer contains no value and no error for %s", client.ErrProtocol, name)
		}
		missing.Secrets = append(missing.Secrets, MissingSecret{name, reason})
	}
	if len(missing.Secrets) > 0 {
		return nil, missing
	}
	return answer.Secrets, nil
}

// ValueBytes returns the bytes that a program gets for a secret: the text, the decoded binary
// value, or the JSON text of a bundle. If the broker sent no value, ValueBytes returns
// client.ErrProtocol.
func ValueBytes(value schema.SecretValue) ([]byte, error) {
	switch {
	case value.Value != nil:
		return []byte(*value.Value), nil
	case value.ValueB64 != nil:
		return value.ValueB64, nil
	}
	return nil, fmt.Errorf("%w: the answer contains a secret without a value", client.ErrProtocol)
}
