package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// maxRedialDelay is the maximum time that Watch waits before it connects to an
// unreachable broker again.
const maxRedialDelay = 2 * time.Second

// Watch calls onChange when the secrets that the project can fetch may have changed. It
// returns when ctx ends, when the broker refuses the watch with a code other than
// rate_limited, or when an answer is invalid (ErrProtocol). If the broker is unreachable,
// ends the connection, or reports a rate limit, Watch connects again after a delay.
//
// If the broker has secrets when a connection begins, Watch first calls onChange with an event
// without names, because any secret may have changed before that time. So a function onChange
// that fetches the secrets misses no change. While onChange runs, Watch does not read. If Watch
// does not read for a long time, the broker combines several changes into one event.
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

// watchConnection opens one connection and watches until the connection ends. It always
// returns an error.
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
		// Ignore other events, because later versions of the broker can send new kinds of events.
		if event.Event == schema.WatchEventChanged {
			onChange(event)
		}
	}
}
