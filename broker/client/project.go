package client

import (
	"context"
	"errors"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// Project is a client for one project socket. It opens a new connection for each request, so that
// it never uses a connection that a restart of the broker has ended. Only Watch uses one
// connection for a longer time. Project is safe for concurrent use.
type Project struct{ path string }

// NewProject returns a client for the project socket at path.
func NewProject(path string) *Project { return &Project{path} }

// Get returns one secret. If the broker does not have the secret, is unreachable, or reports a
// rate limit, Get waits until it can return the secret. wait is the maximum time to wait. The
// broker waits for a missing secret for at most schema.MaxWait, even if wait is longer. If wait
// is 0, Get sends one request and does not wait for a secret or for the broker.
func (p *Project) Get(ctx context.Context, name schema.SecretName, wait time.Duration) (response schema.GetResponse, err error) {
	err = p.retry(ctx, wait, func(remaining time.Duration) error {
		response = schema.GetResponse{}
		request := schema.GetRequest{Op: schema.OpGet, Name: name, WaitMS: remaining.Milliseconds()}
		return p.call(ctx, request, &response, remaining)
	})
	return response, err
}

// GetMany returns several secrets of one snapshot. If names is nil, GetMany returns all
// secrets on the allowlist. If a requested secret on the allowlist is missing, GetMany waits
// for this secret in the same way as Get.
func (p *Project) GetMany(ctx context.Context, names []schema.SecretName, wait time.Duration) (response schema.GetManyResponse, err error) {
	err = p.retry(ctx, wait, func(remaining time.Duration) error {
		response = schema.GetManyResponse{}
		request := schema.GetManyRequest{Op: schema.OpGetMany, Names: names, WaitMS: remaining.Milliseconds()}
		return p.call(ctx, request, &response, remaining)
	})
	return response, err
}

// Info returns the project's name, and the declarations of secrets and helpers in the approved
// manifest. It returns no values of secrets. If the broker is unreachable or reports a rate
// limit, Info retries for at most wait. If wait is 0, Info tries once.
func (p *Project) Info(ctx context.Context, wait time.Duration) (response schema.InfoResponse, err error) {
	err = p.retry(ctx, wait, func(time.Duration) error {
		response = schema.InfoResponse{}
		return p.call(ctx, schema.InfoRequest{Op: schema.OpInfo}, &response, 0)
	})
	return response, err
}

// Ping returns the broker's version and the name of the project. If the broker is unreachable
// or reports a rate limit, Ping retries for at most wait. If wait is 0, Ping tries once.
func (p *Project) Ping(ctx context.Context, wait time.Duration) (response schema.ProjectPingResponse, err error) {
	err = p.retry(ctx, wait, func(time.Duration) error {
		return p.call(ctx, schema.PingRequest{Op: schema.OpPing}, &response, 0)
	})
	return response, err
}

func (p *Project) call(ctx context.Context, request, response any, wait time.Duration) error {
	c, err := dial(ctx, p.path)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.call(ctx, request, response, wait)
}

// minRetryDelay and maxRetryDelay are the minimum and the maximum delay before the next attempt
// to reach a broker. The delay doubles after each attempt.
const (
	minRetryDelay = 10 * time.Millisecond
	maxRetryDelay = 250 * time.Millisecond
)

// retry calls try at least once. If the broker is unreachable, ends the connection, or reports a
// rate limit, retry calls try again after a delay, until the time wait has passed. The argument of
// try is the remaining time. If a secret is missing, retry does not call try again: the broker has
// already waited for the secret.
func (p *Project) retry(ctx context.Context, wait time.Duration, try func(remaining time.Duration) error) error {
	deadline := time.Now().Add(wait)
	for backoff := minRetryDelay; ; backoff = min(2*backoff, maxRetryDelay) {
		err := try(min(max(time.Until(deadline), 0), schema.MaxWait))
		delay := backoff
		refusal, _ := errors.AsType[*Error](err)
		if refusal != nil && refusal.Code == schema.CodeRateLimited {
			delay = refusal.RetryAfter
		} else if !errors.Is(err, ErrUnreachable) {
			return err
		}
		if time.Now().Add(delay).After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
	}
}
