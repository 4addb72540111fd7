package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// A journalWriter sends audit events to the systemd journal. Each call of Write sends one
// event in JSON. Each member of the event becomes a journal field, for example
// KEYHATCH_EVENT, KEYHATCH_PROJECT, or KEYHATCH_PEER_UID. Write omits the member time,
// because the journal adds its own timestamp.
type journalWriter struct{}

func (journalWriter) Write(line []byte) (int, error) {
	var event map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(line)))
	decoder.UseNumber()
	if err := decoder.Decode(&event); err != nil {
		return 0, err
	}
	message := fmt.Sprint(event["event"])
	fields := map[string]string{"SYSLOG_IDENTIFIER": "keyhatchd"}
	for _, name := range slices.Sorted(maps.Keys(event)) {
		if name == "time" {
			continue
		}
		value := fmt.Sprint(event[name])
		fields["KEYHATCH_"+strings.ToUpper(name)] = value
		if name != "event" {
			message += " " + name + "=" + value
		}
	}
	if err := journal.Send(message, journal.PriInfo, fields); err != nil {
		return 0, err
	}
	return len(line), nil
}
