package systemd

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// maxExposure is the maximum exposure level that systemd-analyze security may print for a
// unit. A unit with level 0 is the most confined, and a unit with level 10 is the least
// confined.
const maxExposure = 0.4

// TestUnitExposureScore checks that the exposure level of each shipped unit is at most
// maxExposure.
func TestUnitExposureScore(t *testing.T) {
	m := boot(t)
	for _, unit := range []string{"keyhatch.service", "keyhatch-sidecar.service"} {
		out := m.run("systemd-analyze security --offline=true --no-pager /usr/lib/systemd/system/" + unit)
		submatches := regexp.MustCompile(`exposure level for ` + regexp.QuoteMeta(unit) + `: ([0-9.]+)`).FindStringSubmatch(out)
		if submatches == nil {
			t.Fatalf("systemd-analyze printed no exposure level for %s:\n%s", unit, out)
		}
		score, err := strconv.ParseFloat(submatches[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("exposure level of %s: %v", unit, score)
		if score > maxExposure {
			t.Errorf("the exposure level of %s is %v, want at most %v:\n%s", unit, score, maxExposure, out)
		}
	}
	if out := m.run("systemd-analyze verify keyhatch.socket keyhatch.service keyhatch-sidecar.service 2>&1"); out != "" {
		t.Errorf("systemd-analyze verify reports:\n%s", out)
	}
}

// TestAppArmorSyntax compiles the AppArmor profile. It also checks that the compiler reports
// an error for a wrong profile. It does not test the effect of the profile, because such a
// test needs a kernel with AppArmor.
func TestAppArmorSyntax(t *testing.T) {
	m := boot(t)
	m.run("apparmor_parser --skip-kernel-load --skip-cache --stdout /etc/apparmor.d/usr.bin.keyhatchd >/dev/null")
	m.mustFail("sed 's/^}$/sillyword,\\n}/' /etc/apparmor.d/usr.bin.keyhatchd >/tmp/wrong; apparmor_parser --skip-kernel-load --skip-cache /tmp/wrong", "rror")
}

// TestConfinedDaemonServesAllOperations checks that the settings of the shipped unit do not
// prevent what the daemon does: pushes, fetches, reloads, clears, restarts, and audit events.
// It repeats the check with a lower limit on locked memory, without memfd_secret, and with
// both changes.
func TestConfinedDaemonServesAllOperations(t *testing.T) {
	for _, c := range []struct {
		name, override string
		memories       []schema.Memory // the kinds of memory that may contain the secrets
	}{
		{"as shipped", "", nil}, // nil: only the best kind of memory that this kernel supports
		{"without memfd_secret", "SystemCallFilter=~memfd_secret", []schema.Memory{schema.MemoryLocked}},
		{"with little memory to lock", "LimitMEMLOCK=64K", []schema.Memory{schema.MemorySecret, schema.MemoryLocked, schema.MemoryUnlocked}},
		{"with neither", "LimitMEMLOCK=64K\nSystemCallFilter=~memfd_secret", []schema.Memory{schema.MemoryLocked, schema.MemoryUnlocked}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := boot(t)
			if c.override != "" {
				m.overrideUnit("keyhatch.service", "[Service]\n"+c.override)
			}
			if c.memories == nil {
				best := schema.Memory("")
				if err := json.Unmarshal([]byte(m.run("e2e memory")), &best); err != nil {
					t.Fatal(err)
				}
				c.memories = []schema.Memory{best}
			}
			checkAllOperations(m, c.memories)
		})
	}
}

// checkAllOperations checks that all operations of the daemon and of the sidecar in m work.
// memories lists the kinds of memory that may contain the secrets.
func checkAllOperations(m *machine, memories []schema.Memory) {
	t := m.t
	t.Helper()
	m.run("systemctl start keyhatch.service; keyhatchctl register " + m.createProject("api"))
	m.startSidecar()
	const socket = projectsDir + "api/broker.sock"
	keyhatch := "keyhatch --socket " + socket + " "
	checkMemory := func(size string) {
		t.Helper()
		status := m.status()
		t.Logf("%s set of secrets is in %s memory", size, status.Memory)
		if !slices.Contains(memories, status.Memory) {
			t.Errorf("%s set of secrets is in %s memory, want one of %v", size, status.Memory, memories)
		}
	}
	checkMemory("a small")
	if store := m.status().DescriptorStore; store != schema.DescriptorStoreKept {
		t.Errorf("the state of the file descriptor store is %s, want %s", store, schema.DescriptorStoreKept)
	}
	if text := m.unitProperty("keyhatch.service", "StatusText"); !strings.Contains(text, " loaded, generation ") {
		t.Errorf("the unit's status text is %q, want the generation of the loaded secrets", text)
	}
	if got := m.run(keyhatch + "get A"); got != tripwire+"-A" {
		t.Errorf("get returned %d bytes, which are not the pushed value", len(got))
	}
	m.mustFail(keyhatch+"get OTHER", "not on this project's allowlist")
	m.mustFail(keyhatch+"get MISSING", "MISSING")

	// Test with a set of secrets that is almost as large as the largest allowed push.
	m.run(`i=0; while [ $i -lt 12 ]; do { printf ` + tripwire + `-; head -c 60000 /dev/zero | tr '\0' x; } >/etc/keyhatch/secrets/.new
		mv /etc/keyhatch/secrets/.new /etc/keyhatch/secrets/BIG$i; i=$((i + 1)); done`)
	m.waitFor("the large set of secrets is loaded", `keyhatchctl list | grep -qx BIG11`)
	checkMemory("a large")
	m.run(keyhatch + "get A >/dev/null")

	m.writeFile("/srv/api/.devcontainer/keyhatch.yaml", "schema_version: 1\nproject: api\nsecrets:\n  A:\n  BIG0:\n")
	m.run("keyhatchctl reload --yes api")
	if size := m.run(keyhatch + "get BIG0 | wc -c"); size != "60009" {
		t.Errorf("the secret BIG0 has %s bytes, want 60009", size)
	}
	m.run("keyhatchctl clear")
	m.mustFail(keyhatch+"get A", "hint:")
	m.run("rm /etc/keyhatch/secrets/BIG*")
	m.run(keyhatch + "get --wait 15s A >/dev/null")

	m.run("systemctl restart keyhatch.service")
	m.run(keyhatch + "get --wait 15s A >/dev/null")
	m.run(keyhatch + "list | grep -x BIG0") // after a restart, the broker must use the manifest of the last reload
	m.run("systemctl reload keyhatch.service")
	m.run("keyhatchctl unregister api")
	m.mustFail(keyhatch+"get A", "reach")

	// By default, the daemon writes audit events to the journal, so the journal must contain
	// these events with their fields.
	for _, event := range []schema.EventName{schema.EventSecretsPushed, schema.EventSecretsFetched, schema.EventSecretsCleared, schema.EventProjectReloaded, schema.EventProjectUnregistered} {
		if m.run("journalctl --no-pager --output=cat _SYSTEMD_UNIT=keyhatch.service KEYHATCH_EVENT="+string(event)) == "" {
			t.Errorf("the journal contains no audit event %s", event)
		}
	}
}
