package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// These are the minimum and the maximum delay before events --follow tries to connect to the
// broker again. The delay doubles after each failed attempt.
const (
	minReconnectDelay = 50 * time.Millisecond
	maxReconnectDelay = 2 * time.Second
)

func eventsCommand(o *globalOptions) *cobra.Command {
	var follow bool
	var project string
	var since time.Duration
	c := &cobra.Command{
		Use:   "events",
		Short: "Show the broker's audit events",
		Long: `events shows the recent audit events of the broker. The audit events record, for
example, pushes, fetches, registrations, refusals, and requests of operators. The
broker keeps the last 1024 audit events in memory, so keyhatchctl events does not
need an audit log in a file. An audit event contains counts, and never the name or
the value of a secret.

With --follow, keyhatchctl events waits for new audit events after it has shown the
recent audit events. With --follow, if the broker stops or restarts, keyhatchctl
events connects to the broker again. If audit events happen faster than keyhatchctl
events can print them, or if too many audit events happen before keyhatchctl events
is connected again, keyhatchctl events prints a line events.missed with the number
of missing audit events. If the broker restarts, the number in events.missed does not
include the audit events that happened before the restart.

Each line that keyhatchctl events prints contains the local time, the name of the
event, the project, the uid and the pid of the caller, and the other fields of the
event except the gid of the caller. With --json, keyhatchctl events prints each event
as one JSON object in one line, as in the audit log.`,
		Example: `  keyhatchctl events
  keyhatchctl events --follow --project api
  keyhatchctl events --since 10m --json | jq -c 'select(.denied > 0)'`,
		RunE: func(c *cobra.Command, _ []string) error {
			if project != "" && !schema.ValidProjectName(project) {
				return cli.UsageErrorf("--project must match %s", schema.ProjectNamePattern)
			}
			if since < 0 {
				return cli.UsageErrorf("--since must not be negative")
			}
			printer := eventPrinter{out: c.OutOrStdout(), messages: c.ErrOrStderr(), follow: follow, project: project, asJSON: o.asJSON}
			if c.Flags().Changed("since") {
				printer.since = time.Now().Add(-since)
			}
			if follow {
				return followEvents(c.Context(), o, &printer)
			}
			return o.withAdmin(c.Context(), func(admin *client.Admin) error { return printer.print(c.Context(), admin) })
		},
	}
	c.Flags().BoolVar(&follow, "follow", false, "wait for new events")
	c.Flags().StringVar(&project, "project", "", "show only events of the project `NAME`")
	c.Flags().DurationVar(&since, "since", 0, "show only events of the last `DURATION`, for example 10m; 0s means only new events")
	return c
}

// An eventPrinter prints the events of one or more event streams.
type eventPrinter struct {
	out, messages io.Writer
	follow        bool
	project       string // "" for all events
	asJSON        bool
	table         eventTable

	since      time.Time // the next stream begins after this time; zero for all recent events
	instanceID string    // of the broker of the last stream; "" before the first stream
	next       uint64    // the number of the next event of this broker; 0 if unknown
	connected  bool      // an event stream has started, and its end was not reported yet
}

// print prints the events of one stream. Without follow, it returns nil after the recent events.
// With follow, it prints events until the stream ends, and always returns an error.
func (p *eventPrinter) print(ctx context.Context, admin *client.Admin) error {
	response, err := admin.Events(ctx, p.since)
	if err != nil {
		return err
	}
	switch {
	case p.instanceID == "":
	case p.instanceID == response.InstanceID:
		fmt.Fprintln(p.messages, "keyhatchctl: connected to the broker again")
	default:
		fmt.Fprintln(p.messages, "keyhatchctl: connected to the broker again; the broker has restarted, and an unknown number of events before the restart can be missing")
		p.next = 1
	}
	p.instanceID, p.connected = response.InstanceID, true
	number := response.First // the number of the event in the next line
	if number == 0 {         // the broker does not number its events
		p.next = 0
	}
	if p.next != 0 && number > p.next {
		if err := p.printMissed(number - p.next); err != nil {
			return err
		}
	}
	p.next = max(p.next, number)
	for received := 0; p.follow || received < response.Recent; {
		line, err := admin.NextEvent(ctx)
		if err != nil {
			return err
		}
		e, err := parseEvent(line)
		if err != nil {
			return fmt.Errorf("%w: %w", client.ErrProtocol, err)
		}
		count := 1
		if e.name == schema.EventEventsMissed {
			count = e.count
		} else {
			p.since = e.time
		}
		received += count
		if number != 0 {
			if number += uint64(count); number <= p.next {
				continue // an earlier stream contained this event
			}
			p.next = number
		}
		if err := p.printEvent(e, line); err != nil {
			return err
		}
	}
	return nil
}

// printEvent prints an event, unless it is an event of another project.
func (p *eventPrinter) printEvent(e event, line []byte) error {
	if p.project != "" && !e.concerns(p.project) {
		return nil
	}
	text := string(line)
	if !p.asJSON {
		text = p.table.format(e)
	}
	_, err := fmt.Fprintln(p.out, text)
	return err
}

// printMissed prints an events.missed event for count events that no stream contained.
func (p *eventPrinter) printMissed(count uint64) error {
	line, err := json.Marshal(schema.EventsMissed{
		EventHeader: schema.EventHeader{Time: time.Now().UTC(), Event: schema.EventEventsMissed}, Count: count,
	})
	if err != nil {
		return err
	}
	e, err := parseEvent(line)
	if err != nil {
		return err
	}
	return p.printEvent(e, line)
}

// followEvents prints events until ctx ends. If the broker ends a stream, followEvents connects
// to the broker again, and continues after the last event. If the first connection fails, or if
// another error occurs, followEvents returns the error.
func followEvents(ctx context.Context, o *globalOptions, printer *eventPrinter) error {
	delay := minReconnectDelay
	for {
		err := o.withAdmin(ctx, func(admin *client.Admin) error { return printer.print(ctx, admin) })
		isInterrupted := errors.Is(err, client.ErrUnreachable) || client.CodeOf(err) == schema.CodeRateLimited
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if printer.instanceID == "" || !isInterrupted {
			return err
		}
		if printer.connected {
			fmt.Fprintln(printer.messages, "keyhatchctl: the connection to the broker ended; trying to connect again")
			printer.connected, delay = false, minReconnectDelay
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
		delay = min(2*delay, maxReconnectDelay)
	}
}
