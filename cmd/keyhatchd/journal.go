package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// A journalWriter sends audit events to the systemd journal. Each line that Write gets is one
// event in JSON. Each member of the event becomes a journal field, for example KEYHATCH_EVENT,
// KEYHATCH_PROJECT, or KEYHATCH_PEER_UID. A journalWriter omits the member time, because the
// journal adds its own timestamp.
type journalWriter struct{}

// Write sends one or more lines. It returns the number of bytes in the lines that it sent before
// an error.
func (journalWriter) Write(lines []byte) (n int, err error) {
	for line := range bytes.Lines(lines) {
		if err := sendToJournal(line); err != nil {
			return n, err
		}
		n += len(line)
	}
	return n, nil
}

func sendToJournal(line []byte) error {
	var event map[string]any
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber()
	if err := decoder.Decode(&event); err != nil {
		return err
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
	return journal.Send(message, journal.PriInfo, fields)
}
