package manifest

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/keyhatch/keyhatch/schema"
)

func parse(t *testing.T, text string) *Manifest {
	t.Helper()
	m, err := Parse([]byte(header + text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

func TestEffectsShowEverything(t *testing.T) {
	m := parse(t, `description: has no effect
secrets:
  b: {env: GH_TOKEN}
  NPM_TOKEN:
  aws:
    as: file
    path: ~/.aws/credentials
    template: |
      [default]
      aws_access_key_id={{aws_access_key_id}}
  key: {as: file, path: /srv/a.b c.key, mode: "400"}
  rc: {as: file, path: /root/.bashrc, template: "x"}
helpers:
  kubectl: b
  aws: aws
  docker: [{host: ghcr.io, secret: b}, {host: "http://r.example:5000", secret: b, username: "a,b"}]
  git: [{host: "z.example:8443", secret: b, username: bot}, {host: github.com, secret: NPM_TOKEN}]
`)
	want := []Effect{
		{"project", "name api", ""},
		{"secret NPM_TOKEN", "variable NPM_TOKEN", ""},
		{"secret aws", "file ~/.aws/credentials, mode 0600, with this text:\n| [default]\n| aws_access_key_id={{aws_access_key_id}}", ""},
		{"secret b", "variable GH_TOKEN", ""},
		{"secret key", `file "/srv/a.b\x20c.key", mode 0400, with the value of the secret`, ""},
		{"secret rc", "file /root/.bashrc, mode 0600, with this text:\n| x\n(the last line has no line break)", shellFile},
		{"git login github.com", "secret NPM_TOKEN, username x-access-token by default", ""},
		{"git login z.example:8443", "secret b, username bot", ""},
		{"docker login ghcr.io", "secret b, the username in the secret", ""},
		{"docker login http://r.example:5000", `secret b, username "a,b"`, "docker sends the secret without encryption"},
		{"aws", "secret aws", ""},
		{"kubectl", "secret b", ""},
	}
	if diff := cmp.Diff(want, m.Effects()); diff != "" {
		t.Errorf("Effects (-want +got):\n%s", diff)
	}
}

func TestTemplateCannotForgeLines(t *testing.T) {
	long := strings.Repeat("x", 200)
	for template, want := range map[string]string{
		"a\n":                       "| a",
		"a":                         "| a\n(the last line has no line break)",
		"\n":                        "| ",
		"a\n\n":                     "| a\n| ",
		"| a\n: b\n":                "| | a\n| : b",
		"a\\nb\n":                   `| a\\nb`,
		`{"a": "b\"}` + "\n":        `| {"a": "b\\"}`,
		"\x1b[2Jx\ry\u202e\u0301\n": `| \x1b[2Jx\ry\u202e\u0301`,
		"b\u0430sh\u00a0\u200b\t\n": `| b\u0430sh\u00a0\u200b\t`, // the letter after b is Cyrillic
		"a\n+ secret X: variable X\napprove? [y/N] y\n": "| a\n| + secret X: variable X\n| approve? [y/N] y",
		long + "\n":      "| " + long[:70] + "\n: " + long[:70] + "\n: " + long[:60],
		long[:70] + "\n": "| " + long[:70],
		long[:71] + "\n": "| " + long[:70] + "\n: x",
	} {
		if got := strings.Join(templateLines(template), "\n"); got != want {
			t.Errorf("%q:\n%s\nwant\n%s", template, got, want)
		}
	}
}

func TestChanges(t *testing.T) {
	const base = "secrets:\n  A:\n  F: {as: file, path: /f, template: \"x\\n\"}\n  G:\nhelpers: {git: [{host: a.example, secret: A}, {host: b.example, secret: A}], aws: A}\n"
	for name, c := range map[string]struct {
		old, new string
		want     []Change
	}{
		"the same":            {base, base, nil},
		"comments":            {base, "# a comment\n" + base, nil},
		"description":         {base, "description: a description\n" + base, nil},
		"order":               {base, "helpers: {aws: A, git: [{secret: A, host: b.example}, {host: a.example, secret: A}]}\nsecrets: {G: , F: {template: \"x\\n\", path: /f, as: file}, A: }\n", nil},
		"defaults":            {"secrets: {A: , F: {as: file, path: /f}}\nhelpers: {git: [{host: a, secret: A}]}\n", "secrets: {A: {as: env, env: A}, F: {as: file, path: /f, mode: \"600\"}}\nhelpers: {git: [{host: a, secret: A}], docker: []}\n", nil},
		"empty helpers":       {"secrets: {}\n", "secrets: {}\nhelpers: {}\n", nil},
		"an added variable":   {"secrets: {A: }\n", "secrets: {A: , B: {env: X}}\n", []Change{{"secret B", "", "variable X", ""}}},
		"a removed variable":  {"secrets: {A: , B: {env: EDITOR}}\n", "secrets: {A: }\n", []Change{{"secret B", "variable EDITOR", "", ""}}},
		"only env":            {"secrets: {A: }\n", "secrets: {A: {env: GIT_SSH_COMMAND}}\n", []Change{{"secret A", "variable A", "variable GIT_SSH_COMMAND", "a tool runs the value of GIT_SSH_COMMAND as a command"}}},
		"to a file":           {"secrets: {A: }\n", "secrets: {A: {as: file, path: ~/.bashrc}}\n", []Change{{"secret A", "variable A", "file ~/.bashrc, mode 0600, with the value of the secret", shellFile}}},
		"only the mode":       {"secrets: {A: {as: file, path: /f.key}}\n", "secrets: {A: {as: file, path: /f.key, mode: \"0755\"}}\n", []Change{{"secret A", "file /f.key, mode 0600, with the value of the secret", "file /f.key, mode 0755, with the value of the secret", "the file is executable"}}},
		"only the last break": {"secrets: {A: {as: file, path: /f.key, template: \"x\"}}\n", "secrets: {A: {as: file, path: /f.key, template: \"x\\n\"}}\n", []Change{{"secret A", "file /f.key, mode 0600, with this text:\n| x\n(the last line has no line break)", "file /f.key, mode 0600, with this text:\n| x", unknownFile}}},
		"only the host":       {"secrets: {A: }\nhelpers: {git: [{host: a, secret: A}]}\n", "secrets: {A: }\nhelpers: {git: [{host: \"http://a\", secret: A}]}\n", []Change{{"git login a", "secret A, username x-access-token by default", "", ""}, {"git login http://a", "", "secret A, username x-access-token by default", "git sends the secret without encryption"}}},
		"only the secret":     {"secrets: {A: , B: }\nhelpers: {kubectl: A}\n", "secrets: {A: , B: }\nhelpers: {kubectl: B}\n", []Change{{"kubectl", "secret A", "secret B", ""}}},
		"removed, harmless, dangerous": {"secrets: {A: , Z: {env: PAGER}}\n", "secrets: {B: {env: EDITOR}, C: , D: {env: X}, Z: {env: PAGER}}\nhelpers: {aws: C}\n", []Change{
			{"secret A", "variable A", "", ""}, {"secret C", "", "variable C", ""}, {"secret D", "", "variable X", ""}, {"aws", "", "secret C", ""},
			{"secret B", "", "variable EDITOR", "a tool runs the value of EDITOR as a command"},
		}},
	} {
		if diff := cmp.Diff(c.want, Changes(parse(t, c.old), parse(t, c.new))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	added := Changes(nil, parse(t, "secrets: {A: {env: EDITOR}, B: }\n"))
	if len(added) != 3 || added[0] != (Change{"project", "", "name api", ""}) || added[1].Subject != "secret B" || added[2].Danger == "" {
		t.Errorf("a new project: %+v", added)
	}
	if changes := Changes(parse(t, "secrets: {}\n"), &Manifest{Project: "web"}); len(changes) != 1 || changes[0].Old != "name api" || changes[0].New != "name web" {
		t.Errorf("another name: %+v", changes)
	}
}

func TestLoginsWithoutEncryptionAreDangerous(t *testing.T) {
	for host, dangerous := range map[string]bool{
		"github.com": false, "https://github.com": false, "192.0.2.1": false, "http://github.com": true, "http://192.0.2.1:3000": true,
		"http://localhost": false, "http://localhost:3000": false, "http://127.0.0.1:80": false, "http://127.9.9.9": false, "http://[::1]": false, "http://[::1]:80": false,
		"http://localhost.evil.example": true, "http://127.0.0.1.evil.example": true, "http://127.1": true, "http://0x7f000001": true, "http://[::ffff:127.0.0.1]": false,
		"http://[::2]": true, "http://0.0.0.0": true, "http://sub.localhost": true,
	} {
		m := &Manifest{Helpers: &schema.Helpers{Git: []schema.Login{{Host: host, Secret: "A"}}}}
		if got := m.Effects()[1].Danger; (got != "") != dangerous {
			t.Errorf("%s: danger %q, want %v", host, got, dangerous)
		}
	}
}

// FuzzChanges parses two manifests. Changes must return no change if both manifests have the
// same effects, and at least one change otherwise. The texts of the effects must be complete
// and printable.
func FuzzChanges(f *testing.F) {
	seeds := []string{
		header + "secrets:\n  A:\n  b: {env: B}\n  c: {as: file, path: ~/c, mode: \"0600\", template: x}\n",
		header + "secrets:\n  A: {env: A}\n  b: {env: LESSOPEN}\n  c: {as: file, path: ~/c, mode: \"600\", template: \"x\\n\"}\n",
		header + "secrets:\n  c: {as: file, path: \"/\\u202e\\e\", mode: \"755\", template: \"a\\n\\n| b\\\\n\\e[2J\\r\\u00e9\"}\n",
		header + "secrets: {A: , B: }\nhelpers: {git: [{host: a, secret: A}, {host: \"http://b:80\", secret: B, username: x}], docker: [], aws: A}\n",
		header + "secrets: {B: , A: }\nhelpers: {git: [{host: \"http://b:80\", secret: B, username: x}, {host: a, secret: A, username: x-access-token}], aws: A}\n",
		header + "secrets: {A: , B: }\nhelpers: {docker: [{host: a, secret: A}], kubectl: B}\n",
		"schema_version: 1\nproject: web\ndescription: x\nsecrets: {}\n",
	}
	for _, a := range seeds {
		for _, b := range seeds {
			f.Add([]byte(a), []byte(b))
		}
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		old, err := Parse(a)
		if err != nil {
			return
		}
		checkTexts(t, old)
		if changes := Changes(nil, old); len(changes) != len(old.Effects()) {
			t.Errorf("a new project has the changes %+v", changes)
		}
		if changes := Changes(old, old); len(changes) != 0 {
			t.Errorf("changes without a difference: %+v", changes)
		}
		new, err := Parse(b)
		if err != nil {
			return
		}
		same := reflect.DeepEqual(meaning(old), meaning(new))
		for _, changes := range [][]Change{Changes(old, new), Changes(new, old)} {
			if same != (len(changes) == 0) {
				t.Errorf("%q\n%q\nhave the same meaning: %v, but the changes are %+v", a, b, same, changes)
			}
			if !slices.IsSortedFunc(changes, func(x, y Change) int { return rank(x) - rank(y) }) {
				t.Errorf("the changes are not in the order removed, harmless, dangerous: %+v", changes)
			}
			for _, c := range changes {
				if c.Old == c.New {
					t.Errorf("no change: %+v", c)
				}
			}
		}
	})
}

func rank(c Change) int {
	switch {
	case c.New == "":
		return 0
	case c.Danger == "":
		return 1
	}
	return 2
}

// meaning returns everything in a manifest that has an effect. FuzzChanges compares the
// results of meaning to check Changes, so meaning does not use Effects.
func meaning(m *Manifest) map[string]string {
	all := map[string]string{"project": string(m.Project)}
	for name, in := range m.Injections() {
		mode, _ := strconv.ParseUint(in.Mode, 8, 32)
		all["secret "+string(name)] = fmt.Sprintf("%q %q %q %d %q", in.As, in.Env, in.Path, mode, in.Template)
	}
	if m.Helpers == nil {
		return all
	}
	for helper, logins := range map[string][]schema.Login{"git": m.Helpers.Git, "docker": m.Helpers.Docker} {
		for _, l := range logins {
			all[helper+" "+l.Host] = fmt.Sprintf("%q %q", l.Secret, l.Username)
		}
	}
	for helper, secret := range map[string]schema.SecretName{"aws": m.Helpers.AWS, "kubectl": m.Helpers.Kubectl} {
		if secret != "" {
			all[helper] = string(secret)
		}
	}
	return all
}

// checkTexts checks the subjects and texts of a manifest's effects. The templates and
// paths that it decodes from the texts must be those of the manifest.
func checkTexts(t *testing.T, m *Manifest) {
	t.Helper()
	seen := map[string]bool{}
	for _, e := range m.Effects() {
		if seen[e.Subject] || e.Subject == "" || e.Text == "" {
			t.Errorf("empty or duplicate effect: %+v", e)
		}
		seen[e.Subject] = true
		if text := e.Subject + e.Danger; !isPrintableASCII(text) || len(e.Subject) > 300 || len(e.Danger) > 300 {
			t.Errorf("subject %q, danger %q", e.Subject, e.Danger)
		}
		for i, line := range strings.Split(e.Text, "\n") {
			if !isPrintableASCII(line) || i > 0 && len(line) > maxEffectLine {
				t.Errorf("%s: line %q", e.Subject, line)
			}
		}
		name, isSecret := strings.CutPrefix(e.Subject, "secret ")
		if !isSecret {
			continue
		}
		in := m.Injection(schema.SecretName(name))
		first, rest, _ := strings.Cut(e.Text, "\n")
		if got := decodeTemplate(t, rest); got != in.Template {
			t.Errorf("%s: the template %q is shown as %q:\n%s", name, in.Template, got, e.Text)
		}
		if in.As == schema.InjectAsFile {
			word := strings.Fields(first)[1]
			shown := strings.TrimSuffix(word, ",")
			if unquoted, err := strconv.Unquote(shown); err == nil {
				shown = unquoted
			}
			if shown != in.Path {
				t.Errorf("%s: the path %q is shown as %q", name, in.Path, word)
			}
		}
	}
	if want := 1 + len(m.Allowlist()); len(seen) < want {
		t.Errorf("%d effects, want at least %d: %v", len(seen), want, slices.Sorted(maps.Keys(seen)))
	}
}

func isPrintableASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func decodeTemplate(t *testing.T, text string) string {
	t.Helper()
	if text == "" {
		return ""
	}
	var lines []string
	end := "\n"
	for line := range strings.SplitSeq(text, "\n") {
		if start, ok := strings.CutPrefix(line, "| "); ok {
			lines = append(lines, start)
		} else if rest, ok := strings.CutPrefix(line, ": "); ok {
			lines[len(lines)-1] += rest
		} else if line == "(the last line has no line break)" {
			end = ""
		} else {
			t.Errorf("unexpected line %q", line)
		}
	}
	for i, line := range lines {
		decoded, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, `\"`) + `"`)
		if err != nil {
			t.Errorf("%q: %v", line, err)
		}
		lines[i] = decoded
	}
	return strings.Join(lines, "\n") + end
}
