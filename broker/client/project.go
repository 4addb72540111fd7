package client

import (
	"context"
	"errors"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// Project fetches from one project's socket. It dials for each request, so it
// holds nothing that a restart of the broker could make stale; only Watch keeps
// its connection. It is safe for concurrent use.
type Project struct{ path string }

// NewProject returns a client for the project socket at path.
func NewProject(path string) *Project { return &Project{path} }

// Get returns one secret. With wait it goes on until the secret is there or
// that time, at most schema.MaxWait, is over, through restarts of the broker
// too; 0 asks once.
func (p *Project) Get(ctx context.Context, name schema.SecretName, wait time.Duration) (response schema.GetResponse, err error) {
	err = p.retry(ctx, wait, func(remaining time.Duration) error {
		response = schema.GetResponse{}
		request := schema.GetRequest{Op: schema.OpGet, Name: name, WaitMS: remaining.Milliseconds()}
		return p.call(ctx, request, &response, remaining)
	})
	return response, err
}

// GetMany returns several secrets of one snapshot; nil names asks for the
// whole allowlist. With wait it goes on until all that are allowed are there
// or that time, at most schema.MaxWait, is over, through restarts of the broker
// too; 0 asks once.
func (p *Project) GetMany(ctx context.Context, names []schema.SecretName, wait time.Duration) (response schema.GetManyResponse, err error) {
	err = p.retry(ctx, wait, func(remaining time.Duration) error {
		response = schema.GetManyResponse{}
		request := schema.GetManyRequest{Op: schema.OpGetMany, Names: names, WaitMS: remaining.Milliseconds()}
		return p.call(ctx, request, &response, remaining)
	})
	return response, err
}

// Info returns the project's name and its allowlist.
func (p *Project) Info(ctx context.Context) (response schema.InfoResponse, err error) {
	err = p.call(ctx, schema.InfoRequest{Op: schema.OpInfo}, &response, 0)
	return response, err
}

// Ping says who is there. With wait it goes on until somebody is, or that time
// is over; 0 asks once.
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

// The pauses between two tries to reach a broker, each twice the last.
const (
	minRetryDelay = 10 * time.Millisecond
	maxRetryDelay = 250 * time.Millisecond
)

// retry calls try with the time that is left until it gets through to a
// broker. The broker does the waiting for the secret; only a broker that is not
// there, goes away meanwhile, or says to come back, is asked again.
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
