package systemd

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// auditWait is how long a get waits for audit where audit is required, and the
// time that a loaded machine takes for the rest.
const auditWait = time.Second + 250*time.Millisecond

// A way for audit to be in trouble.
type trouble struct {
	name    string
	audit   string // setting
	prepare string // scripts
	begin   string
	end     string
	trail   string // prints what is in the audit trail
}

var troubles = []trouble{
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

func audited(m *machine, w trouble, settings string) {
	m.t.Helper()
	if w.prepare != "" {
		m.run(w.prepare)
	}
	m.configure("request_rate: 0\naudit: " + w.audit + "\n" + settings)
	m.run("systemctl start keyhatch.service; keyhatchctl register " + m.project("api"))
	m.sidecar()
}

const apiSocket = projects + "api/broker.sock"

// TestAuditInTrouble: gets, pushes and clears go on, and what audit dropped is
// counted and reported afterwards.
func TestAuditInTrouble(t *testing.T) {
	for _, w := range troubles {
		t.Run(w.name, func(t *testing.T) {
			m := boot(t)
			audited(m, w, "")
			before := m.status()
			m.run(w.begin)
			// More than any queue, socket buffer or page holds.
			var results map[string]int
			if err := json.Unmarshal([]byte(m.run("e2e many "+apiSocket+" 20000")), &results); err != nil {
				t.Fatal(err)
			}
			if results["ok"] != 20000 {
				t.Errorf("gets: %v", results)
			}
			m.run("keyhatchctl clear")
			m.fails("keyhatch --socket "+apiSocket+" get A", "hint:")
			m.run(`printf '{"A":"` + tripwire + `-again"}' | keyhatchctl push -`)
			m.run("keyhatch --socket " + apiSocket + " get A >/dev/null")
			during := m.status()
			if during.InstanceID != before.InstanceID {
				t.Error("the daemon did not live through it")
			}
			if during.AuditDropped == 0 {
				t.Error("status counts nothing that was dropped")
			}
			m.run(w.end)
			// The next event finds its way, and says what did not.
			m.await("audit says what it dropped", "keyhatch --socket "+apiSocket+" get A >/dev/null; { "+w.trail+"; } | grep -q '"+string(schema.EventAuditDropped)+"'")
			trail := m.run(w.trail)
			if strings.Contains(trail, tripwire) {
				t.Error("a secret's value is in the audit trail")
			}
			if m.status().InstanceID != before.InstanceID {
				t.Error("the daemon did not live through the end of it")
			}
			if n := m.show("keyhatch-sidecar.service", "NRestarts"); n != "0" {
				t.Errorf("the sidecar restarted %s times", n)
			}
		})
	}
}

// TestAuditRequired: a get that cannot be recorded is refused, in time; pushes
// and clears never wait.
func TestAuditRequired(t *testing.T) {
	for _, w := range troubles {
		t.Run(w.name, func(t *testing.T) {
			m := boot(t)
			audited(m, w, "audit_required: true\n")
			m.run("keyhatch --socket " + apiSocket + " get A >/dev/null")
			m.run(w.begin)
			m.await("gets are refused", "e2e once "+apiSocket+" | grep -q "+string(schema.CodeAuditUnavailable))
			var r onceResult
			if err := json.Unmarshal([]byte(m.run("e2e once "+apiSocket)), &r); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s after %v", r.Outcome, r.Took.Round(time.Millisecond))
			if r.Outcome != string(schema.CodeAuditUnavailable) || r.Took > auditWait {
				t.Errorf("a get ended with %s after %v, want %s within 1 s", r.Outcome, r.Took, schema.CodeAuditUnavailable)
			}
			m.run(`printf '{"A":"` + tripwire + `-again"}' | keyhatchctl push -`)
			m.run("keyhatchctl clear")
			if m.status().Generation != 0 {
				t.Error("the clear did nothing")
			}
			m.run(w.end)
			m.run(`printf '{"A":"` + tripwire + `-again"}' | keyhatchctl push -`)
			m.await("gets are answered again", "e2e once "+apiSocket+" | grep -q '\"ok\"'")
		})
	}
}
