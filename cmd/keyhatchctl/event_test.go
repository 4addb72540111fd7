package main

import (
	"strings"
	"testing"
	"time"
)

// TestEventsAreAlignedLines formats events. One event is of a later version, and its texts could
// look like a separate line. Each event must be one line with aligned columns, and a text must
// not contain unescaped spaces or control characters. parseEvent must refuse lines that are not
// events.
func TestEventsAreAlignedLines(t *testing.T) {
	const at = "2026-01-31T08:15:00.123456789Z"
	local, err := time.Parse(time.RFC3339, at)
	if err != nil {
		t.Fatal(err)
	}
	var table eventTable
	for _, c := range []struct{ line, want string }{
		{`"event":"secrets.pushed","peer_uid":0,"peer_gid":0,"peer_pid":42,"secret_count":3,"generation":7`, "secrets.pushed        -        secret_count=3 generation=7 uid=0 pid=42"},
		{`"event":"project.unregistered","peer_uid":1000,"peer_gid":1000,"project":"api"`, "project.unregistered  api      uid=1000"},
		{`"event":"secrets.fetched","peer_uid":0,"peer_gid":0,"project":"a-long-name","allowed":1,"denied":2,"not_found":0`, "secrets.fetched       a-long-name  allowed=1 denied=2 not_found=0 uid=0"},
		{`"event":"events.missed","count":310`, "events.missed         -            count=310"},
		{`"event":"later\n","project":"a b","text":"x y\u001b","list":[1, 2],"peer_uid":1`, `"later\n"             "a\x20b"     text="x\x20y\x1b" list="[1,\x202]" uid=1`},
	} {
		e, err := parseEvent([]byte(`{"time":"` + at + `",` + c.line + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := table.format(e), local.Local().Format(time.DateTime)+"  "+c.want; got != want {
			t.Errorf("%s is printed as\n%s, want\n%s", c.line, got, want)
		}
	}
	for _, line := range []string{``, `[]`, `{"time":5}`, `{"event":`, `{"event":"events.missed","count":"x"}`} {
		if _, err := parseEvent([]byte(line)); err == nil {
			t.Errorf("%s was accepted", line)
		}
	}
}

// TestMissedEventsAreCounted runs events --project web without --follow. The broker announces
// four events, but sends only two events and one events.missed with the count 2. The command must
// end after these lines. It must also print the line events.missed, because the missing events
// may have been about the project.
func TestMissedEventsAreCounted(t *testing.T) {
	socket := fakeBroker(t, func(op, _ string) string {
		if op == "ping" {
			return pingResponse
		}
		const at = `{"time":"2026-01-31T08:15:00Z","event":`
		return `{"ok":true,"instance_id":"x","recent":4}` + "\n" + at + `"events.missed","count":2}` + "\n" +
			at + `"project.registered","peer_uid":0,"peer_gid":0,"project":"api","allowlist_size":1}` + "\n" +
			at + `"project.registered","peer_uid":0,"peer_gid":0,"project":"web","allowlist_size":1}` + "\n" +
			at + `"project.unregistered","peer_uid":0,"peer_gid":0,"project":"web"}`
	})
	out, err := runCommand(t, "--socket", socket, "events", "--project", "web")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err != nil || len(lines) != 2 || !strings.Contains(lines[0], "count=2") || !strings.Contains(lines[1], "web") {
		t.Errorf("the error is %v, the output is\n%s", err, out)
	}
}
