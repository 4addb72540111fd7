package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// An event is one audit event.
type event struct {
	time    time.Time
	name    schema.EventName
	project string // "" if the event is not about a project
	count   int    // the value of the field count, or 0 without this field
	// details contains all fields except time, event, project, and peer_gid, as NAME=VALUE. The
	// uid and the pid of the caller are at the end.
	details []string
}

// parseEvent parses a line of the event stream. It also accepts events and fields that only later
// versions of the broker send.
func parseEvent(line []byte) (e event, err error) {
	decoder := json.NewDecoder(bytes.NewReader(line))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return event{}, errors.New("an event is not a JSON object")
	}
	var caller []string
	for decoder.More() {
		key, err := decoder.Token()
		var value json.RawMessage
		if err == nil {
			err = decoder.Decode(&value)
		}
		if err != nil {
			return event{}, err
		}
		switch key {
		case "time":
			err = json.Unmarshal(value, &e.time)
		case "event":
			err = json.Unmarshal(value, &e.name)
		case "project":
			err = json.Unmarshal(value, &e.project)
		case "peer_uid", "peer_pid":
			caller = append(caller, strings.TrimPrefix(key.(string), "peer_")+"="+printableValue(value))
		case "count":
			err = json.Unmarshal(value, &e.count)
			e.details = append(e.details, "count="+printableValue(value))
		case "peer_gid":
		default:
			e.details = append(e.details, cli.PrintableWord(key.(string))+"="+printableValue(value))
		}
		if err != nil {
			return event{}, err
		}
	}
	e.details = append(e.details, caller...)
	return e, nil
}

// printableValue returns the text of a JSON value in one word. It removes the quotes of a string.
func printableValue(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) != nil {
		text = string(value)
	}
	return cli.PrintableWord(text)
}

// concerns reports whether the event is about a project, or about events that were lost. Some of
// the lost events may have been about the project.
func (e event) concerns(project string) bool {
	return e.project == project || e.name == schema.EventEventsMissed || e.name == schema.EventAuditDropped
}

// An eventTable formats one line for each event, with aligned columns. If the name of a project
// is longer than the column, the column becomes wider for this line and the next lines.
type eventTable struct{ projectWidth int }

func (t *eventTable) format(e event) string {
	project := "-"
	if e.project != "" {
		project = cli.PrintableWord(e.project)
	}
	t.projectWidth = max(t.projectWidth, len(project), len("project"))
	const nameWidth = len(schema.EventProjectUnregistered) // the longest name of an event of this version
	return fmt.Sprintf("%s  %-*s  %-*s  %s", formatTime(e.time), nameWidth, cli.PrintableWord(string(e.name)), t.projectWidth, project, strings.Join(e.details, " "))
}
