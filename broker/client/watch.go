package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// maxRedialDelay is the longest pause of a Watch that has no broker.
const maxRedialDelay = 2 * time.Second

// Watch calls onChange whenever what the project may fetch may have changed,
// until ctx ends or the broker refuses, and returns why. It redials through
// restarts of the broker.
//
// Each connection that finds secrets loaded, the first one too, begins with an
// event without names: anything may have changed before it. So whoever fetches
// in onChange misses nothing. Nothing is read meanwhile, and what happens then is
// in the next event.
func (p *Project) Watch(ctx context.Context, onChange func(schema.ChangedEvent)) error {
	delay := minRetryDelay
	for {
		err := p.watchConnection(ctx, func(event schema.ChangedEvent) {
			delay = minRetryDelay
			onChange(event)
		})
		refusal, _ := errors.AsType[*Error](err)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case refusal != nil && refusal.Code == schema.CodeRateLimited:
			delay = max(delay, refusal.RetryAfter)
		case !errors.Is(err, ErrUnreachable):
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
		delay = min(2*delay, maxRedialDelay)
	}
}

// watchConnection watches on one connection. It always returns an error.
func (p *Project) watchConnection(ctx context.Context, onChange func(schema.ChangedEvent)) error {
	c, err := dial(ctx, p.path)
	if err != nil {
		return err
	}
	defer c.Close()
	var response schema.WatchResponse
	if err := c.call(ctx, schema.WatchRequest{Op: schema.OpWatch}, &response, 0); err != nil {
		return err
	}
	if response.Generation != 0 {
		onChange(schema.ChangedEvent{Event: schema.WatchEventChanged, Generation: response.Generation})
	}
	c.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		line, err := c.readLine(ctx, nil)
		if err != nil {
			return err
		}
		var event schema.ChangedEvent
		if err := wire.Decode(line, &event, schema.MaxResponseDepth); err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if event.Event == schema.WatchEventChanged { // others may come in time
			onChange(event)
		}
	}
}
