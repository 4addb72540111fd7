package sidecar

import (
	"context"
	"log/slog"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// A publisher pushes sets to the broker and remembers the set that the broker has. It
// connects and reconnects if necessary.
type publisher struct {
	connection       connection
	log              *slog.Logger
	reportedProblems map[string]bool // problems logged since the last successful request

	pushed     store.Set // the last set that the broker accepted, or nil if a push is needed
	instanceID string    // of the broker process that accepted pushed
	generation uint64    // of pushed in the broker
}

func newPublisher(socket string, log *slog.Logger) *publisher {
	return &publisher{connection: connection{socket: socket}, log: log, reportedProblems: map[string]bool{}}
}

// checkBroker requests the broker's status, because the broker may have restarted, an
// operator may have cleared it, or another client may have pushed to it.
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
		p.reportProblem(slog.LevelWarn, "cannot get the broker's status", err)
	}
}

// reportProblem logs a problem with the connection. It does not log the same problem
// again until a request succeeds.
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

// reportRecovery must be called after a successful request. If a problem was logged
// before, reportRecovery logs that the problem is over.
func (p *publisher) reportRecovery() {
	if len(p.reportedProblems) > 0 {
		clear(p.reportedProblems)
		p.log.Info("the broker answers again")
	}
}

// updateFromStatus compares the broker's status with the last push. If the broker
// restarted or has another set, the set of the store must be pushed again. If the same
// broker process has no set, an operator has cleared it. It then stays empty until the
// store changes.
func (p *publisher) updateFromStatus(status schema.StatusResponse) {
	switch {
	case status.InstanceID != p.instanceID:
		p.instanceID, p.pushed = status.InstanceID, nil
	case status.Generation != p.generation && status.Generation != 0:
		p.pushed = nil
		p.log.Warn("another client, possibly a second sidecar, has pushed to this broker; pushing the store again",
			"generation", status.Generation, "expected_generation", p.generation)
	}
}

// push pushes set unless the broker already has it. If there is no connection, push
// connects first, even if set is nil. It returns false if the caller must retry soon.
func (p *publisher) push(ctx context.Context, set store.Set) (ok bool) {
	if p.connection.admin == nil {
		status, err := p.connection.dial(ctx)
		if err != nil {
			if ctx.Err() == nil {
				p.reportProblem(slog.LevelWarn, "cannot connect to the broker; retrying", err)
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
		// An immediate retry would fail in the same way. The next change or poll tries
		// again.
		p.log.Error("the broker refused the push", "code", client.CodeOf(err), "error", err)
		return true
	}
	p.reportProblem(slog.LevelWarn, "the push failed; retrying", err)
	return false
}

// handleDisconnect closes the connection after the broker ended it. It reports whether
// the broker had answered a request on that connection.
func (p *publisher) handleDisconnect() (hadWorked bool) {
	hadWorked = p.connection.hasWorked
	p.connection.close()
	p.reportProblem(slog.LevelInfo, "the broker ended the connection", nil)
	return hadWorked
}

// clearBroker removes all secrets from the broker.
func (p *publisher) clearBroker() {
	ctx, cancel := context.WithTimeout(context.Background(), maxRetryDelay)
	defer cancel()
	if p.connection.admin == nil {
		if _, err := p.connection.dial(ctx); err != nil {
			p.log.Error("cannot delete the secrets from the broker", "error", err)
			return
		}
	}
	if err := p.connection.call(func(admin *client.Admin) error { return admin.Clear(ctx) }); err != nil {
		p.log.Error("cannot delete the secrets from the broker", "error", err)
	}
}
