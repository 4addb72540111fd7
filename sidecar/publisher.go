package sidecar

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// reconnectTime is longer than the time that a sidecar needs to connect to a restarted broker
// and to push.
const reconnectTime = maxRetryDelay + time.Second

// A publisher pushes sets of secrets to the broker, and remembers the last set that it
// pushed. If there is no connection to the broker, the publisher connects again.
type publisher struct {
	connection       connection
	log              *slog.Logger
	reportedProblems map[string]bool // problems logged since the last successful request

	// pushed is the last set that the broker accepted. It is nil before the first push, after a restart
	// of the broker, after another client has replaced the set, and after a request to push an
	// unchanged set. Only compare the pointer, because the memory of the set can already be freed.
	pushed     *store.LockedSet
	hasPushed  bool   // true after the first push that this broker process accepted
	instanceID string // identifies the broker process that returned the last status
	// generation is the broker's generation number after the last successful push. If there
	// was no push to this broker process, it is the generation number in the first status.
	generation uint64
	// isRefused is true after the broker has refused a push because another sidecar is
	// connected. The next successful push sets isRefused to false.
	isRefused bool
	// yieldUntil is the time until which a refused sidecar does not push to a restarted broker,
	// so that the other sidecar can push first. The broker does not know which sidecar was refused
	// before the restart.
	yieldUntil time.Time

	secretCount       int  // the number of the broker's secrets in the last status
	isCleared         bool // true if somebody has cleared the broker since the last push
	withholdsEmptySet bool // true if the last set was not pushed because it is empty
	// allowsEmptySet is true after the first successful push, or after the owner has confirmed
	// an empty set.
	allowsEmptySet bool

	storeProblems         int // the number of problems with the store
	reportedStoreProblems int // the last value of storeProblems that was sent on this connection
}

func newPublisher(socket, tokenFile string, log *slog.Logger) *publisher {
	return &publisher{connection: connection{socket: socket, tokenFile: tokenFile}, log: log, reportedProblems: map[string]bool{}}
}

// reportStoreProblems reports the number of problems with the store to the broker, if the broker
// does not know this number yet.
func (p *publisher) reportStoreProblems(ctx context.Context, count int) {
	if p.storeProblems = count; count != p.reportedStoreProblems {
		p.checkBroker(ctx)
	}
}

// checkBroker requests the broker's status. From the status, the publisher learns whether
// the broker has restarted, and whether another client has pushed secrets to the broker.
func (p *publisher) checkBroker(ctx context.Context) {
	if p.connection.admin == nil {
		return // the next call of push connects to the broker and gets the status
	}
	err := p.connection.call(func(admin *client.Admin) error {
		status, err := admin.ReportStoreProblems(ctx, p.storeProblems)
		if err == nil {
			p.updateFromStatus(status)
		}
		return err
	})
	if err == nil {
		p.reportedStoreProblems = p.storeProblems
		p.reportRecovery()
	} else if ctx.Err() == nil {
		p.reportProblem(slog.LevelWarn, "cannot get the broker's status", err)
	}
}

// reportProblem logs a problem with the connection to the broker. It does not log the
// same problem again until a request to the broker succeeds.
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

// reportRecovery must be called after a successful request to the broker. If
// reportProblem has logged a problem before, reportRecovery logs that the broker answers
// again.
func (p *publisher) reportRecovery() {
	if len(p.reportedProblems) > 0 {
		clear(p.reportedProblems)
		p.log.Info("the broker answers again")
	}
}

// updateFromStatus compares the broker's status with the last push. If the broker has
// restarted or has another set of secrets, updateFromStatus sets pushed to nil, so that
// the sidecar pushes the set of the store again.
//
// If the broker has not restarted but its secrets are gone, an operator has cleared the broker.
// updateFromStatus does not change pushed in this case, so the sidecar pushes only after the store
// changes, or on request.
func (p *publisher) updateFromStatus(status schema.StatusResponse) {
	p.secretCount = status.SecretCount
	p.isCleared = status.InstanceID == p.instanceID && p.generation != 0 && status.Generation == 0
	switch {
	case status.InstanceID != p.instanceID:
		p.instanceID, p.pushed, p.hasPushed, p.generation = status.InstanceID, nil, false, status.Generation
		if p.isRefused {
			p.yieldUntil = time.Now().Add(reconnectTime)
		}
	case p.pushed != nil && status.Generation != p.generation && status.Generation != 0:
		p.pushed = nil
		p.log.Warn("another client has pushed to this broker; pushing the store again",
			"generation", status.Generation, "expected_generation", p.generation)
	}
}

// requestPush makes the next call of push push the set, even if the broker already has this set.
// If the last set was not pushed because it is empty, the request confirms the empty set.
func (p *publisher) requestPush() {
	p.pushed = nil
	p.allowsEmptySet = p.allowsEmptySet || p.withholdsEmptySet
}

// push pushes set to the broker, unless set is the last set that the broker accepted. Before the
// first successful push, push does not replace the broker's secrets by an empty set, because a file
// system may not be mounted. By a request to push, or by clearing the broker, the owner confirms the
// empty set. If there is no connection, push connects first, even if set is nil. push returns false
// if the sidecar must call push again soon.
func (p *publisher) push(ctx context.Context, set *store.LockedSet) (ok bool) {
	if p.connection.admin == nil {
		status, err := p.connection.dial(ctx, p.storeProblems)
		if err != nil {
			if ctx.Err() == nil {
				p.reportProblem(slog.LevelWarn, "cannot connect to the broker; retrying", err)
			}
			return ctx.Err() != nil
		}
		p.reportedStoreProblems = p.storeProblems
		p.updateFromStatus(status)
	}
	if set == nil || set == p.pushed {
		return true
	}
	if time.Now().Before(p.yieldUntil) {
		return false
	}
	withheldBefore := p.withholdsEmptySet
	if p.withholdsEmptySet = len(set.Names()) == 0 && !p.allowsEmptySet && p.secretCount > 0; p.withholdsEmptySet {
		if !withheldBefore {
			p.log.Error("the store has no secrets, but the broker has secrets; the secrets in the broker do not change",
				"hint", confirmHint(os.Getpid()))
		}
		return true
	}
	err := p.connection.call(func(admin *client.Admin) error {
		var oldNames []schema.SecretName // the names of the other sidecar's secrets
		if p.isRefused {
			var err error
			if oldNames, err = admin.List(ctx); err != nil {
				return err
			}
		}
		response, err := admin.Push(ctx, set.PushLine())
		if err == nil {
			p.reportTakeover(oldNames, set.Names())
			p.pushed, p.generation = set, response.Generation
			p.hasPushed, p.allowsEmptySet, p.isRefused, p.isCleared = true, true, false, false
			p.log.Info("pushed the secrets to the broker", "secrets", response.SecretCount, "generation", response.Generation)
		}
		return err
	})
	if err == nil {
		p.reportRecovery()
	}
	if err == nil || ctx.Err() != nil {
		return true
	}
	if client.CodeOf(err) == schema.CodeConflict {
		if !p.isRefused {
			p.log.Error("the broker refuses this sidecar, because another sidecar is connected to the same broker", "error", err,
				"hint", "stop one of the two sidecars; this sidecar tries again at each poll")
		}
		p.isRefused = true
		return true
	}
	if client.CodeOf(err) != "" {
		// Do not retry immediately, because the broker would refuse the same set again.
		// Run calls push again after the next change of the store and at each poll.
		p.log.Error("the broker refused the push", "code", client.CodeOf(err), "error", err)
		return true
	}
	p.reportProblem(slog.LevelWarn, "the push failed; retrying", err)
	return false
}

// reportTakeover logs a warning if this sidecar has replaced the secrets of another sidecar by secrets
// with other names. oldNames contains the names of the other sidecar's secrets, or is empty if there was
// no other sidecar. names contains the names of the new secrets. The broker does not return values, so
// reportTakeover cannot compare the values.
func (p *publisher) reportTakeover(oldNames, names []schema.SecretName) {
	removed, added := difference(oldNames, names), difference(names, oldNames)
	if len(oldNames) > 0 && len(removed)+len(added) > 0 {
		p.log.Warn("another sidecar has stopped, and this sidecar has replaced the secrets of the other sidecar by a different set",
			"secrets_before", len(oldNames), "secrets_after", len(names), "removed", len(removed), "added", len(added),
			"hint", "if the broker should have the secrets of the other sidecar, stop this sidecar, and start the other sidecar again")
	}
}

// handleDisconnect closes a connection that the broker has ended. It reports whether the
// broker has answered a request on this connection, apart from the status request of
// dial.
func (p *publisher) handleDisconnect() (hadWorked bool) {
	hadWorked = p.connection.hasWorked
	p.connection.close()
	p.reportProblem(slog.LevelInfo, "the broker ended the connection", nil)
	return hadWorked
}

// clearBroker removes all secrets from the broker. If the secrets are not from the last push of this
// sidecar, clearBroker logs a warning instead, because the secrets belong to another client. If a request
// fails, clearBroker logs the error.
func (p *publisher) clearBroker() {
	ctx, cancel := context.WithTimeout(context.Background(), maxRetryDelay)
	defer cancel()
	var err error
	if p.connection.admin == nil {
		_, err = p.connection.dial(ctx, 0)
	}
	if err == nil {
		err = p.connection.call(func(admin *client.Admin) error {
			status, err := admin.Status(ctx)
			isOwn := p.hasPushed && status.InstanceID == p.instanceID && status.Generation == p.generation
			if err != nil || status.Generation == 0 {
				return err
			}
			if !isOwn {
				p.log.Warn("the secrets in the broker were not removed on exit, because they are not from the last push of this sidecar",
					"secrets", status.SecretCount, "hint", "to remove the secrets, run keyhatchctl clear")
				return nil
			}
			return admin.Clear(ctx)
		})
	}
	if err != nil {
		p.log.Error("cannot remove the secrets from the broker on exit", "error", err)
	}
}
