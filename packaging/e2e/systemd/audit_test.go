package systemd

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// auditTimeout is the maximum time until a get is refused if audit is required and the
// get's audit event cannot be written. The broker waits for one second. A quarter of a
// second is added for a machine under load.
const auditTimeout = time.Second + 250*time.Millisecond

// An auditFailure is one cause for a failure of the audit log.
type auditFailure struct {
	name    string
	audit   string // the value of the setting audit
	prepare string // a shell script that runs before the daemon starts, or ""
	begin   string // a shell script that makes the audit log fail
	end     string // a shell script that ends the failure
	trail   string // a shell script that prints all audit events
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
		// A stopped journal does not read its sockets, so writes to these sockets block.
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

// TestGetsContinueWhenAuditFails checks that the broker still answers gets, pushes, and
// clears while the audit log fails. It also checks that the broker counts the dropped audit
// events, and later writes this count to the audit log.
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
				t.Errorf("the outcomes of 20000 gets are %v, want only ok", results)
			}
			// The broker merges the audit events of gets, but not the audit events of clears.
			// Therefore use 20000 clears to fill every queue, every socket buffer, and the free
			// space in the last page of the log file.
			m.run("e2e repeat-clear 20000")
			m.mustFail("keyhatch --socket "+apiSocket+" get A", "hint:")
			m.run(`printf '{"A":"` + tripwire + `-again"}' | keyhatchctl push -`)
			m.run("keyhatch --socket " + apiSocket + " get A >/dev/null")
			during := m.status()
			if during.InstanceID != before.InstanceID {
				t.Error("the daemon restarted during the failure")
			}
			if during.AuditDropped == 0 {
				t.Error("the status of the broker does not count the dropped audit events")
			}
			m.run(failure.end)
			// After the failure, the broker must write an event with the number of dropped
			// events.
			m.waitFor("the number of dropped events is in the audit log", "keyhatch --socket "+apiSocket+" get A >/dev/null; { "+failure.trail+"; } | grep -q '"+string(schema.EventAuditDropped)+"'")
			trail := m.run(failure.trail)
			if strings.Contains(trail, tripwire) {
				t.Error("the audit log contains the value of a secret")
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

// TestGetsAreRefusedWhenRequiredAuditFails checks that a get is refused within
// auditTimeout if audit is required and the get's audit event cannot be written. Pushes and
// clears must still work.
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
				t.Errorf("a get returned %s after %v, want %s within %v", r.Outcome, r.Took, schema.CodeAuditUnavailable, auditTimeout)
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
