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
	connection       connection
	log              *slog.Logger
	reportedProblems map[string]bool // since the last request that worked

	pushed     store.Set // the last set that the broker accepted; nil: none, or the broker lost it
	instanceID string    // of the broker that accepted it
	generation uint64    // that the broker gave to it
}

func newPublisher(socket string, log *slog.Logger) *publisher {
	return &publisher{connection: connection{socket: socket}, log: log, reportedProblems: map[string]bool{}}
}

// checkBroker asks the broker for its status, because it may have
// restarted, been cleared, or been given another set.
func (p *publisher) checkBroker(ctx context.Context) {
	if p.connection.admin == nil {
		return // push dials
	}
	err := p.connection.call(func(admin *client.Admin) error {
		status, err := admin.Status(ctx)
		if err == nil {
			p.updateFromStatus(status)
		}
		return err
	})
	if err == nil {
		p.reportRecovery()
	} else if ctx.Err() == nil {
		p.reportProblem(slog.LevelWarn, "the broker does not say how it is", err)
	}
}

// reportProblem logs a problem of the connection. It logs each problem once until a
// request works.
func (p *publisher) reportProblem(level slog.Level, message string, err error) {
	problem, attributes := message, []any{}
	if err != nil {
		problem += err.Error()
		attributes = append(attributes, "error", err)
	}
	if !p.reportedProblems[problem] {
		p.reportedProblems[problem] = true
		p.log.Log(context.Background(), level, message, attributes...)
	}
}

// reportRecovery logs that a request worked, if a problem was logged before.
func (p *publisher) reportRecovery() {
	if len(p.reportedProblems) > 0 {
		clear(p.reportedProblems)
		p.log.Info("the broker answers again")
	}
}

// updateFromStatus notes what the broker has, and so what must be pushed again. A broker that restarted, and
// one that has another set, get the set of the store again. A broker that has
// no set was cleared by its operator, and stays empty until the store changes.
func (p *publisher) updateFromStatus(status schema.StatusResponse) {
	switch {
	case status.InstanceID != p.instanceID:
		p.instanceID, p.pushed = status.InstanceID, nil
	case status.Generation != p.generation && status.Generation != 0:
		p.pushed = nil
		p.log.Warn("something else pushes to this broker, perhaps a second sidecar; the store is pushed again",
			"generation", status.Generation, "ours", p.generation)
	}
}

// push pushes a set that the broker does not have, and connects first if there is
// no connection. It reports false if the caller must try again soon.
func (p *publisher) push(ctx context.Context, set store.Set) (ok bool) {
	if p.connection.admin == nil {
		status, err := p.connection.dial(ctx)
		if err != nil {
			if ctx.Err() == nil {
				p.reportProblem(slog.LevelWarn, "no broker to push to yet", err)
			}
			return ctx.Err() != nil
		}
		p.updateFromStatus(status)
	}
	if set == nil || (p.pushed != nil && set.Equal(p.pushed)) {
		return true
	}
	err := p.connection.call(func(admin *client.Admin) error {
		line, err := set.EncodePush()
		if err != nil {
			return err
		}
		defer clear(line)
		response, err := admin.Push(ctx, line)
		if err == nil {
			p.pushed, p.generation = set, response.Generation
			p.log.Info("pushed", "secrets", response.SecretCount, "generation", response.Generation)
		}
		return err
	})
	if err == nil {
		p.reportRecovery()
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
	p.reportProblem(slog.LevelWarn, "the push did not get through", err)
	return false
}

// handleDisconnect closes a connection that the broker ended. It reports whether
// a request on that connection had worked.
func (p *publisher) handleDisconnect() (hadWorked bool) {
	hadWorked = p.connection.hasWorked
	p.connection.close()
	p.reportProblem(slog.LevelInfo, "the broker ended the connection", nil)
	return hadWorked
}

// clearBroker drops the broker's set.
func (p *publisher) clearBroker() {
	ctx, cancel := context.WithTimeout(context.Background(), maxRetryDelay)
	defer cancel()
	if p.connection.admin == nil {
		if _, err := p.connection.dial(ctx); err != nil {
			p.log.Error("the broker could not be cleared", "error", err)
			return
		}
	}
	if err := p.connection.call(func(admin *client.Admin) error { return admin.Clear(ctx) }); err != nil {
		p.log.Error("the broker could not be cleared", "error", err)
	}
}
