package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
)

// TestExplainReportsResultsOfBroker runs explain with invented answers of a broker, because these
// states are hard to create with a real broker. explain must print the result of each check, and
// must return an error if the get would fail. The script testdata/explain.txt tests explain with
// a real broker.
func TestExplainReportsResultsOfBroker(t *testing.T) {
	const status = `{"ok":true,"broker_version":"9","protocol_version":2,"instance_id":"x","uptime_seconds":1,"generation":1,"secret_count":1,"secrets_loaded_at":"2026-01-31T08:15:00Z","memory":"mlock","descriptor_store":"absent","audit_dropped":0,` +
		`"projects":[{"name":"api","project_path":"/nowhere/api","socket_path":"/s","declared":false,"allowlist_size":1,"counts":{"allowed":0,"denied":0,"not_found":0},"connections":0,"manifest_sha256":"x"}],` +
		`"problems":[{"project":"web","project_path":"/nowhere/web","problem":"registration_not_restored","message":"the directory is blocked"}]}`
	for _, c := range []struct {
		project, answer string
		want            []string
		ok              bool
	}{
		{"api", `{"ok":true,"socket_in_place":true,"uid_allowed":true,"secret_allowed":true,"secrets_loaded":true,"secret_present":true}`,
			[]string{"ok   rate limit: ", "note manifest: path_gone: ", "a get of A in project api by uid 7 would succeed\n"}, true},
		{"api", `{"ok":true,"socket_in_place":true,"uid_allowed":true,"secret_allowed":true,"secrets_loaded":true,"secret_present":true,"retry_after_seconds":3}`,
			[]string{"BAD  rate limit: rate_limited: ", "     fix: wait 3 seconds, and check again: keyhatchctl --socket ", " explain api A --uid 7\n"}, false},
		{"api", `{"ok":true,"unserved":true,"socket_in_place":false,"uid_allowed":false,"secret_allowed":false,"secrets_loaded":false,"secret_present":false}`,
			[]string{"BAD  registered: not_served: ", " doctor\n"}, false},
		{"api", `{"ok":true,"socket_in_place":true,"socket_mode_changed":true,"uid_allowed":true,"secret_allowed":true,"secrets_loaded":true,"secret_present":true}`,
			[]string{"BAD  socket: socket_mode: ", "     fix: remove the socket: rm /s\n"}, false},
		{"api", `{"ok":true,"socket_in_place":true,"uid_allowed":true,"secret_allowed":true,"secrets_loaded":true,"secret_present":true,"too_many_connections":true}`,
			[]string{"BAD  connections: rate_limited: "}, false},
		{"api", `{"ok":true,"socket_in_place":true,"uid_allowed":true,"secret_allowed":true,"secrets_loaded":true,"secret_present":true,"audit_unavailable":true}`,
			[]string{"BAD  audit: audit_unavailable: ", " explain api A --uid 7\n"}, false},
		{"api", `{"ok":true,"socket_in_place":false,"uid_allowed":true,"secret_allowed":true,"secrets_loaded":true,"secret_present":true}`,
			[]string{"BAD  socket: socket_missing: ", "     fix: if the socket is still not in place, find the cause and the fix: keyhatchctl --socket ", " doctor\n"}, false},
		{"web", "", []string{"BAD  registered: not_served: the directory is blocked\n", "     fix: "}, false},
	} {
		socket := fakeBroker(t, func(op, _ string) string {
			return map[string]string{"ping": pingResponse, "status": status, "explain": c.answer}[op]
		})
		out, err := runCommand(t, "--socket", socket, "explain", c.project, "A", "--uid", "7")
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("the explanation of %s does not contain %q:\n%s", c.answer, want, out)
			}
		}
		if (err == nil) != c.ok {
			t.Errorf("after the answer %s, the error is %v", c.answer, err)
		}
	}
}

// TestExplainWithoutDirectory runs explain for a project whose directory does not exist, without
// --uid. If the registration has one uid, explain must use this uid, and if it has no uid, explain
// must use root's uid. If the registration has several uids, explain must ask for --uid.
func TestExplainWithoutDirectory(t *testing.T) {
	for uids, want := range map[string]string{
		"[1234]":      "by uid 1234 would succeed\n",
		"[1234,1235]": "with --uid",
		"[]":          "by uid 0 would succeed\n",
	} {
		socket := fakeBroker(t, func(op, _ string) string {
			return map[string]string{
				"ping": pingResponse,
				"status": `{"ok":true,"broker_version":"9","protocol_version":2,"instance_id":"x","uptime_seconds":1,"generation":1,"secret_count":1,"memory":"mlock","descriptor_store":"absent","audit_dropped":0,` +
					`"projects":[{"name":"api","project_path":"/nowhere/api","socket_path":"/s","declared":false,"allowlist_size":1,"allow_uids":` + uids + `,"counts":{"allowed":0,"denied":0,"not_found":0},"connections":0,"manifest_sha256":"x"}],"problems":[]}`,
				"explain": `{"ok":true,"socket_in_place":true,"uid_allowed":true,"secret_allowed":true,"secrets_loaded":true,"secret_present":true}`,
			}[op]
		})
		out, err := runCommand(t, "--socket", socket, "explain", "api", "A")
		if e, ok := errors.AsType[*cli.Error](err); ok {
			out += e.Hint
		}
		if !strings.Contains(out, want) {
			t.Errorf("with allow_uids %s, explain printed %q, error %v, want %q", uids, out, err, want)
		}
	}
}
