package manifest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// An Effect is one thing that an approved manifest does, for example that a secret is put into
// a variable. The operator reads all effects before the approval.
type Effect struct {
	// Subject is the thing that has the effect, for example "secret NPM_TOKEN". The effects of
	// one manifest have different subjects.
	Subject string
	// Text describes the effect completely: two different effects of the same subject have
	// different texts. Untrusted code writes the manifest. Therefore Text contains only
	// printable ASCII characters and the line breaks that this package inserts. Each line
	// has at most maxEffectLine characters, except that the first line can contain a long
	// path or name, which contains no space.
	//
	// The first line summarizes the effect. If a file has a template, each further line
	// contains a part of the template:
	//
	//	file ~/.npmrc, mode 0600, with this text:
	//	| the first line of the template
	//	| a line that is too long for one line of Text
	//	: continues after a colon
	//	(the last line has no line break)
	Text string
	// Danger is a short reason why the effect is dangerous, or "". It quotes nothing from
	// the manifest except short names of variables.
	Danger string
}

// A Change is a difference between an old and a new manifest. Old and New are the texts of the
// effect that Subject has in the old and in the new manifest.
type Change struct {
	Subject string `json:"subject"`
	Old     string `json:"old,omitempty"` // "" if the old manifest has no such subject
	New     string `json:"new,omitempty"` // "" if the new manifest has no such subject
	Danger  string `json:"danger,omitempty"`
}

// Effects returns everything that the manifest does: the project's name, then the secrets
// sorted by name, then the helpers. The description has no effect.
func (m *Manifest) Effects() []Effect {
	effects := []Effect{{Subject: "project", Text: "name " + QuoteWord(string(m.Project))}}
	for _, name := range m.allowlist {
		in := m.Injection(name)
		effect := Effect{Subject: "secret " + string(name)}
		if in.As == schema.InjectAsFile {
			effect.Text, effect.Danger = fileText(&in), fileDanger(&in)
		} else {
			effect.Text, effect.Danger = "variable "+QuoteWord(in.Env), variableDanger(in.Env)
		}
		effects = append(effects, effect)
	}
	if h := m.Helpers; h != nil {
		effects = append(effects, loginEffects("git", h.Git, "username x-access-token by default")...)
		effects = append(effects, loginEffects("docker", h.Docker, "the username in the secret")...)
		for _, helper := range []struct {
			name   string
			secret schema.SecretName
		}{{"aws", h.AWS}, {"kubectl", h.Kubectl}} {
			if helper.secret != "" {
				effects = append(effects, Effect{Subject: helper.name, Text: "secret " + string(helper.secret)})
			}
		}
	}
	return effects
}

// Changes compares the effects of two manifests. If old is nil, every effect of new is added. A
// change is dangerous if its new effect is dangerous.
//
// The result contains first the removed effects, then the harmless changes in the order of Effects,
// and last the dangerous changes. keyhatchctl prints the changes and then asks for approval. A
// manifest can contain a template with thousands of lines, and a terminal shows only the last
// lines. If the dangerous changes came first, other changes could push them off the screen. A
// dangerous change can still have a long text. Therefore keyhatchctl repeats the subject and the
// danger of dangerous changes, which are short, directly before the question.
func Changes(old, new *Manifest) []Change {
	before, after := map[string]Effect{}, map[string]Effect{}
	for _, effect := range effectsOf(old) {
		before[effect.Subject] = effect
	}
	for _, effect := range effectsOf(new) {
		after[effect.Subject] = effect
	}
	var removed, harmless, dangerous []Change
	for _, effect := range effectsOf(old) {
		if _, ok := after[effect.Subject]; !ok {
			removed = append(removed, Change{Subject: effect.Subject, Old: effect.Text})
		}
	}
	for _, effect := range effectsOf(new) {
		change := Change{effect.Subject, before[effect.Subject].Text, effect.Text, effect.Danger}
		switch {
		case change.Old == change.New:
		case change.Danger == "":
			harmless = append(harmless, change)
		default:
			dangerous = append(dangerous, change)
		}
	}
	return slices.Concat(removed, harmless, dangerous)
}

func effectsOf(m *Manifest) []Effect {
	if m == nil {
		return nil
	}
	return m.Effects()
}

// loginEffects returns the effects of a helper's logins, sorted by host. The order of the
// logins in the manifest has no effect, because each host occurs once.
func loginEffects(helper string, logins []schema.Login, defaultUsername string) (effects []Effect) {
	for _, l := range slices.SortedFunc(slices.Values(logins), func(a, b schema.Login) int { return cmp.Compare(a.Host, b.Host) }) {
		username := defaultUsername
		if l.Username != "" {
			username = "username " + QuoteWord(l.Username)
		}
		effects = append(effects, Effect{
			Subject: helper + " login " + QuoteWord(l.Host),
			Text:    fmt.Sprintf("secret %s, %s", l.Secret, username),
			Danger:  loginDanger(helper, l),
		})
	}
	return effects
}

// loginDanger returns why a login is dangerous, or "". A login for an http:// host is
// dangerous, because the helper's program sends the secret without encryption. A login for
// localhost or a loopback address is not dangerous, because the traffic does not leave the
// machine. An IP address is not more dangerous than a name: over https, a program checks the
// server's certificate for both.
func loginDanger(helper string, l schema.Login) string {
	host, plain := strings.CutPrefix(l.Host, "http://")
	if !plain {
		return ""
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); host == "localhost" || err == nil && addr.IsLoopback() {
		return ""
	}
	return helper + " sends the secret without encryption"
}
