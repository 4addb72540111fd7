package sidecar

import (
	"context"
	"log/slog"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// A publisher pushes sets to the broker, and knows what the broker holds. It
// connects and reconnects as necessary.
type publisher struct {
	link     link
	log      *slog.Logger
	linkSaid map[string]bool // since the connection last worked

	pushed     store.Set // what the broker took of us last
	instance   string    // of the broker that took it
	generation uint64    // that it gave
}

func newPublisher(socket string, log *slog.Logger) *publisher {
	return &publisher{link: link{socket: socket}, log: log, linkSaid: map[string]bool{}}
}

// ask looks after the broker where nothing has changed here: it may have
// restarted, been cleared, or been given another set.
func (p *publisher) ask(ctx context.Context) {
	if p.link.admin == nil {
		return // push dials
	}
	err := p.link.call(func(admin *client.Admin) error {
		status, err := admin.Status(ctx)
		if err == nil {
			p.compare(status)
		}
		return err
	})
	if err == nil {
		p.linkWorked()
	} else if ctx.Err() == nil {
		p.sayLink(slog.LevelWarn, "the broker does not say how it is", err)
	}
}

// sayLink says what is wrong with the connection, each thing once until it works.
func (p *publisher) sayLink(level slog.Level, what string, err error) {
	said, attributes := what, []any{}
	if err != nil {
		said += err.Error()
		attributes = append(attributes, "error", err)
	}
	if !p.linkSaid[said] {
		p.linkSaid[said] = true
		p.log.Log(context.Background(), level, what, attributes...)
	}
}

func (p *publisher) linkWorked() {
	if len(p.linkSaid) > 0 {
		clear(p.linkSaid)
		p.log.Info("the broker answers again")
	}
}

// compare decides what a broker's status means: a broker that restarted, and
// one that was given another set, get the store's again. A broker that holds
// nothing was cleared by its operator, and that holds until the store changes.
func (p *publisher) compare(status schema.StatusResponse) {
	switch {
	case status.InstanceID != p.instance:
		p.instance, p.pushed = status.InstanceID, nil
	case status.Generation != p.generation && status.Generation != 0:
		p.pushed = nil
		p.log.Warn("something else pushes to this broker, perhaps a second sidecar; the store is pushed again",
			"generation", status.Generation, "ours", p.generation)
	}
}

// push brings the broker what it does not have, connecting first where there is
// no connection. It reports false where it must be tried again soon.
func (p *publisher) push(ctx context.Context, set store.Set) bool {
	if p.link.admin == nil {
		status, err := p.link.dial(ctx)
		if err != nil {
			if ctx.Err() == nil {
				p.sayLink(slog.LevelWarn, "no broker to push to yet", err)
			}
			return ctx.Err() != nil
		}
		p.compare(status)
	}
	if set == nil || (p.pushed != nil && set.Equal(p.pushed)) {
		return true
	}
	err := p.link.call(func(admin *client.Admin) error {
		line, err := set.EncodePush()
		if err != nil {
			return err
		}
		defer clear(line)
		answer, err := admin.Push(ctx, line)
		if err == nil {
			p.pushed, p.generation = set, answer.Generation
			p.log.Info("pushed", "secrets", answer.SecretCount, "generation", answer.Generation)
		}
		return err
	})
	if err == nil {
		p.linkWorked()
	}
	if err == nil || ctx.Err() != nil {
		return true
	}
	if client.CodeOf(err) != "" {
		// Trying again at once would get the same answer; the next change or
		// poll tries again.
		p.log.Error("the broker refused the set", "code", client.CodeOf(err), "error", err)
		return true
	}
	p.sayLink(slog.LevelWarn, "the push did not get through", err)
	return false
}

// ended closes a connection that the broker ended. It reports whether that
// connection had worked.
func (p *publisher) ended() (worked bool) {
	worked = p.link.worked
	p.link.close()
	p.sayLink(slog.LevelInfo, "the broker ended the connection", nil)
	return worked
}

// clear clears the broker.
func (p *publisher) clear() {
	ctx, cancel := context.WithTimeout(context.Background(), lastRetry)
	defer cancel()
	if p.link.admin == nil {
		if _, err := p.link.dial(ctx); err != nil {
			p.log.Error("the broker could not be cleared", "error", err)
			return
		}
	}
	if err := p.link.call(func(admin *client.Admin) error { return admin.Clear(ctx) }); err != nil {
		p.log.Error("the broker could not be cleared", "error", err)
	}
}
