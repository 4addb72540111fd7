package systemd

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// auditTimeout is the maximum time until a get is refused if audit is required: one
// second, plus some time for a machine under load.
const auditTimeout = time.Second + 250*time.Millisecond

// An auditFailure is a way for the audit log to fail.
type auditFailure struct {
	name    string
	audit   string // the audit setting
	prepare string // shell scripts
	begin   string
	end     string
	trail   string // prints the audit trail
}

var auditFailures = []auditFailure{
	{
		name: "journal stopped", audit: "journal",
		begin: `systemctl mask --runtime --quiet systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket
			systemctl stop systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket systemd-journald.service`,
		end: `systemctl unmask --runtime --quiet systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket
			systemctl start systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service`,
		trail: `journalctl --no-pager --output=json --unit=keyhatch.service`,
	},
	{
		// The journal does not read its sockets, so writes to them block.
		name: "journal hung", audit: "journal",
		begin: `pkill -STOP -x systemd-journal`,
		end:   `pkill -CONT -x systemd-journal`,
		trail: `journalctl --no-pager --output=json --unit=keyhatch.service`,
	},
	{
		name: "disk full", audit: "file:/var/log/keyhatch/audit.log",
		prepare: `mkdir -p /var/log/keyhatch; mount -t tmpfs -o size=64k,mode=0750,uid=keyhatch,gid=keyhatch audit /var/log/keyhatch`,
		begin:   `dd if=/dev/zero of=/var/log/keyhatch/filler bs=4k 2>/dev/null || true; test $(df --output=avail /var/log/keyhatch | tail -1) = 0`,
		end:     `rm /var/log/keyhatch/filler`,
		trail:   `cat /var/log/keyhatch/audit.log`,
	},
}

func startWithAudit(m *machine, failure auditFailure, settings string) {
	m.t.Helper()
	if failure.prepare != "" {
		m.run(failure.prepare)
	}
	m.addSettings("request_rate: 0\naudit: " + failure.audit + "\n" + settings)
	m.run("systemctl start keyhatch.service; keyhatchctl register " + m.createProject("api"))
	m.startSidecar()
}

const apiSocket = projectsDir + "api/broker.sock"

// TestGetsContinueWhenAuditFails checks that gets, pushes, and clears continue, and
// that dropped audit events are counted and reported later.
func TestGetsContinueWhenAuditFails(t *testing.T) {
	for _, failure := range auditFailures {
		t.Run(failure.name, func(t *testing.T) {
			m := boot(t)
			startWithAudit(m, failure, "")
			before := m.status()
			m.run(failure.begin)
			var results map[string]int
			if err := json.Unmarshal([]byte(m.run("e2e repeat-get "+apiSocket+" 20000")), &results); err != nil {
				t.Fatal(err)
			}
			if results["ok"] != 20000 {
				t.Errorf("gets: %v", results)
			}
			// The events of gets are merged. These events fill every queue, socket buffer,
			// and page.
			m.run("e2e repeat-clear 20000")
			m.mustFail("keyhatch --socket "+apiSocket+" get A", "hint:")
			m.run(`printf '{"A":"` + tripwire + `-again"}' | keyhatchctl push -`)
			m.run("keyhatch --socket " + apiSocket + " get A >/dev/null")
			during := m.status()
			if during.InstanceID != before.InstanceID {
				t.Error("the daemon restarted during the failure")
			}
			if during.AuditDropped == 0 {
				t.Error("status does not count the dropped events")
			}
			m.run(failure.end)
			// The next event is written, and so is the number of dropped events.
			m.waitFor("the number of dropped events is in the audit trail", "keyhatch --socket "+apiSocket+" get A >/dev/null; { "+failure.trail+"; } | grep -q '"+string(schema.EventAuditDropped)+"'")
			trail := m.run(failure.trail)
			if strings.Contains(trail, tripwire) {
				t.Error("a secret's value is in the audit trail")
			}
			if m.status().InstanceID != before.InstanceID {
				t.Error("the daemon restarted after the failure")
			}
			if n := m.unitProperty("keyhatch-sidecar.service", "NRestarts"); n != "0" {
				t.Errorf("the sidecar restarted %s times", n)
			}
		})
	}
}

// TestGetsAreRefusedWhenRequiredAuditFails checks that a get is refused in time if its
// audit event cannot be written. Pushes and clears do not wait.
func TestGetsAreRefusedWhenRequiredAuditFails(t *testing.T) {
	for _, failure := range auditFailures {
		t.Run(failure.name, func(t *testing.T) {
			m := boot(t)
			startWithAudit(m, failure, "audit_required: true\n")
			m.run("keyhatch --socket " + apiSocket + " get A >/dev/null")
			m.run(failure.begin)
			m.waitFor("gets are refused", "e2e time-get "+apiSocket+" | grep -q "+string(schema.CodeAuditUnavailable))
			var r timedGet
			if err := json.Unmarshal([]byte(m.run("e2e time-get "+apiSocket)), &r); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s after %v", r.Outcome, r.Took.Round(time.Millisecond))
			if r.Outcome != string(schema.CodeAuditUnavailable) || r.Took > auditTimeout {
				t.Errorf("a get returned %s after %v, want %s within 1 s", r.Outcome, r.Took, schema.CodeAuditUnavailable)
			}
			m.run(`printf '{"A":"` + tripwire + `-again"}' | keyhatchctl push -`)
			m.run("keyhatchctl clear")
			if m.status().Generation != 0 {
				t.Error("the clear had no effect")
			}
			m.run(failure.end)
			m.run(`printf '{"A":"` + tripwire + `-again"}' | keyhatchctl push -`)
			m.waitFor("gets are answered again", "e2e time-get "+apiSocket+" | grep -q '\"ok\"'")
		})
	}
}
