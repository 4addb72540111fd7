package systemd

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// auditTimeout is the time in which a get must be refused if audit is required:
// one second, and some time for a machine under load.
const auditTimeout = time.Second + 250*time.Millisecond

// An auditFailure is a way for the audit log to fail.
type auditFailure struct {
	name    string
	audit   string // setting
	prepare string // scripts
	begin   string
	end     string
	trail   string // prints what is in the audit trail
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
		// Nobody reads, and what is written comes to a standstill.
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

// TestGetsContinueWhenAuditFails: gets, pushes, and clears continue. Dropped
// audit events are counted and reported afterwards.
func TestGetsContinueWhenAuditFails(t *testing.T) {
	for _, failure := range auditFailures {
		t.Run(failure.name, func(t *testing.T) {
			m := boot(t)
			startWithAudit(m, failure, "")
			before := m.status()
			m.run(failure.begin)
			// More than any queue, socket buffer or page holds.
			var results map[string]int
			if err := json.Unmarshal([]byte(m.run("e2e repeat-get "+apiSocket+" 20000")), &results); err != nil {
				t.Fatal(err)
			}
			if results["ok"] != 20000 {
				t.Errorf("gets: %v", results)
			}
			m.run("keyhatchctl clear")
			m.mustFail("keyhatch --socket "+apiSocket+" get A", "hint:")
			m.run(`printf '{"A":"` + tripwire + `-again"}' | keyhatchctl push -`)
			m.run("keyhatch --socket " + apiSocket + " get A >/dev/null")
			during := m.status()
			if during.InstanceID != before.InstanceID {
				t.Error("the daemon did not live through it")
			}
			if during.AuditDropped == 0 {
				t.Error("status counts nothing that was dropped")
			}
			m.run(failure.end)
			// The next event finds its way, and says what did not.
			m.waitFor("audit says what it dropped", "keyhatch --socket "+apiSocket+" get A >/dev/null; { "+failure.trail+"; } | grep -q '"+string(schema.EventAuditDropped)+"'")
			trail := m.run(failure.trail)
			if strings.Contains(trail, tripwire) {
				t.Error("a secret's value is in the audit trail")
			}
			if m.status().InstanceID != before.InstanceID {
				t.Error("the daemon did not live through the end of it")
			}
			if n := m.unitProperty("keyhatch-sidecar.service", "NRestarts"); n != "0" {
				t.Errorf("the sidecar restarted %s times", n)
			}
		})
	}
}

// TestGetsAreRefusedWhenRequiredAuditFails: a get that cannot be recorded is
// refused in time. Pushes and clears do not wait.
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
				t.Errorf("a get ended with %s after %v, want %s within 1 s", r.Outcome, r.Took, schema.CodeAuditUnavailable)
			}
			m.run(`printf '{"A":"` + tripwire + `-again"}' | keyhatchctl push -`)
			m.run("keyhatchctl clear")
			if m.status().Generation != 0 {
				t.Error("the clear did nothing")
			}
			m.run(failure.end)
			m.run(`printf '{"A":"` + tripwire + `-again"}' | keyhatchctl push -`)
			m.waitFor("gets are answered again", "e2e time-get "+apiSocket+" | grep -q '\"ok\"'")
		})
	}
}
