package manifest

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

const header = "schema_version: 1\nproject: api\n"

func TestParseAcceptsValidManifest(t *testing.T) {
	m, err := Parse([]byte(`# a comment
schema_version: 1
project: api
description: Payments API
secrets:
  NPM_TOKEN:
  gh: {env: GH_TOKEN}
  aws:
    as: file
    path: ~/.aws/credentials
    template: |
      [default]
      aws_access_key_id={{aws_access_key_id}}
  key: {as: file, path: /etc/key, mode: "400"}
`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := m.Allowlist(), []schema.SecretName{"NPM_TOKEN", "aws", "gh", "key"}; !slices.Equal(got, want) {
		t.Errorf("the allowlist is %v, want %v", got, want)
	}
	if !m.Allows("gh") || m.Allows("GH_TOKEN") || m.Allows("") {
		t.Error("Allows must accept exactly the names on the allowlist")
	}
	if in := m.Injection("NPM_TOKEN"); in.As != schema.InjectAsEnv || in.Env != "NPM_TOKEN" {
		t.Errorf("NPM_TOKEN has %+v", in)
	}
	if in := m.Injection("aws"); in.As != schema.InjectAsFile || in.Mode != "0600" || !strings.HasPrefix(in.Template, "[default]\n") {
		t.Errorf("aws has %+v", in)
	}
	if len(m.SHA256()) != 64 || m.Description != "Payments API" {
		t.Errorf("%+v", m)
	}
	empty, err := Parse([]byte(header + "secrets: {}\n"))
	if err != nil || len(empty.Allowlist()) != 0 || empty.Allowlist() == nil {
		t.Errorf("empty allowlist: %v, %v", empty, err)
	}
}

func TestParseRejectsInvalidManifest(t *testing.T) {
	for _, c := range []struct {
		text string
		line int
		rule string
	}{
		{"", 0, "is empty"},
		{"# only a comment\n", 0, "is empty"},
		{"\xff", 0, "UTF-8"},
		{header + "secrets: {}\n#" + strings.Repeat("x", schema.MaxManifest), 0, "the limit is 32768"},
		{"a: [", 1, "not valid YAML"},
		{header + "secrets: {}\n---\n{}\n", 0, "more than one YAML document"},
		{header + "secrets: {}\n---\n[\n", 5, "not valid YAML"},
		{"- a\n", 1, "must be a mapping"},
		{"just text\n", 1, "must be a mapping"},
		{"project: api\nsecrets: {}\n", 1, "schema_version is missing"},
		{"schema_version: 2\nproject: api\nsecrets: {}\n", 1, "schema_version must be 1"},
		{"schema_version: \"1\"\nproject: api\nsecrets: {}\n", 1, "schema_version must be 1"},
		{"schema_version: 1\nsecrets: {}\n", 1, "project is missing"},
		{"schema_version: 1\nproject: My App\nsecrets: {}\n", 2, `the project name "My\x20App" does not match ` + schema.ProjectNamePattern + `: write project: my-app`},
		{header, 1, "secrets is missing"},
		{header + "secrets:\n", 3, "must be a mapping"},
		{header + "secrets: []\n", 3, "must be a mapping"},
		{header + "secrets: {}\nsecrets: {}\n", 4, "duplicate key secrets"},
		{header + "secrets: {}\nsecrts: {}\n", 4, `unknown key "secrts" in the manifest: the keys are description, helpers, project, schema_version, secrets`},
		{"schema_version: 1\nproject: Ünï_1 !x\nsecrets: {}\n", 2, `: write project: n-_1-x`},
		{"schema_version: 1\nproject: \"…\"\nsecrets: {}\n", 2, `: write project: NAME`},
		{"schema_version: 1\nproject: [a]\nsecrets: {}\n", 2, `project must be a string, not a list: write project: "a"`},
		{header + "secrets: {}\n\"\\e[31m\": {}\n", 4, `unknown key "\x1b[31m"`},
		{header + "secrets: {}\n" + strings.Repeat("k", 99) + ": {}\n", 4, `unknown key "` + strings.Repeat("k", 40) + `"`},
		{header + "secrets: {}\ndescription: 5\n", 4, "description must be a string"},
		{header + "secrets: {}\ndescription: " + strings.Repeat("é", 257) + "\n", 4, "more than 256"},
		{header + "secrets:\n  A:\n  A:\n", 5, "duplicate secret A"},
		{header + "secrets:\n  bad name:\n", 4, "does not match"},
		{header + "secrets:\n  [x]:\n", 4, "does not match"},
		{header + "secrets: [A, b.c]\n", 3, "secrets must be a mapping, not a list: write secrets: {A: , b.c: }"},
		{header + "secrets:\n- A\n- b c\n", 4, "secrets must be a mapping, not a list: write secrets: {NAME: }"},
		{header + "secrets:\n- A: {env: B}\n", 4, "secrets must be a mapping, not a list: write secrets: {NAME: }"},
		{header + "secrets:\n  A: text\n", 4, "A: leave the value empty, because the manifest contains only names: the values are in the sidecar's store"},
		{header + "secrets:\n  A: [env]\n", 4, "A must be a mapping"},
		{header + "secrets:\n\tA:\n", 4, "YAML does not allow tabs for indentation: use spaces"},
		{header + "secrets:\n  A:\n    as: file\n\tpath: x\n", 6, "YAML does not allow tabs for indentation: use spaces"},
		{header + "secrets: {A: {env: }}\n", 3, "env is empty"},
		{header + "secrets: {A: {env: [X]}}\n", 3, `env must be a string, not a list: write env: "X"`},
		{header + "secrets: {A: }\nhelpers: {kubectl: [A]}\n", 4, `kubectl must be a string, not a list: write kubectl: "A"`},
		{header + "secrets: {A: }\nhelpers: {kubectl: {secret: A}}\n", 4, "kubectl must be a string, not a mapping"},
		{header + "secrets:\n  A: !!null {as: pipe}\n", 4, "the value of as must be env or file"},
		{header + "secrets:\n  A: {as: pipe}\n", 4, "the value of as must be env or file"},
		{header + "secrets:\n  A: {fil: x}\n", 4, `unknown key "fil"`},
		{header + "secrets:\n  A: {env: X, env: Y}\n", 4, "duplicate key env"},
		{header + "secrets:\n  A: {env: \"\"}\n", 4, "env is empty"},
		{header + "secrets:\n  A: {env: A-B}\n", 4, "is not a valid variable name"},
		{header + "secrets:\n  a.b:\n", 4, "set another name with env:"},
		{header + "secrets:\n  1A:\n", 4, "is not a valid variable name"},
		{header + "secrets:\n  A: {path: /x}\n", 4, "are allowed only with as: file"},
		{header + "secrets:\n  A: {as: file}\n", 4, "needs a path"},
		{header + "secrets:\n  A: {as: file, path: x}\n", 4, "absolute or start with ~/"},
		{header + "secrets:\n  A: {as: file, path: ~/../x}\n", 4, "must not contain .."},
		{header + "secrets:\n  A: {as: file, path: /a/../x}\n", 4, "must not contain .."},
		{header + "secrets:\n  A: {as: file, path: /}\n", 4, "must name a file"},
		{header + "secrets:\n  A: {as: file, path: ~/}\n", 4, "must name a file"},
		{header + "secrets:\n  A: {as: file, path: ~/" + strings.Repeat("x", 4094) + "}\n", 4, "path must have at most 4095 bytes"},
		{header + "secrets:\n  A: {as: file, path: \"/a\\0b\"}\n", 4, "NUL"},
		{header + "secrets:\n  A: {as: file, path: /x, mode: 0600}\n", 4, `mode must be a string: write mode: "0600"`},
		{header + "secrets:\n  A: {as: file, path: /x, mode: \"rw\"}\n", 4, "must be an octal number"},
		{header + "secrets:\n  A: {as: file, path: /x, mode: \"4755\"}\n", 4, "must be an octal number"},
		{header + "secrets:\n  A: {as: file, path: /x, env: X}\n", 4, "env is allowed only with as: env"},
		{header + "secrets:\n  A: {env: X}\n  B: {env: X}\n", 5, "two secrets use the variable X"},
		{header + "secrets:\n  X:\n  B: {env: X}\n", 5, "two secrets use the variable X"},
		{header + "secrets:\n  A: {as: file, path: /x}\n  B: {as: file, path: /x}\n", 5, "two secrets use the path"},
		{header + "secrets:\n  A: {as: file, path: /run/secrets/k}\n  B: {as: file, path: /var/run/secrets/k}\n", 5, "two secrets use the path"},
		{header + "secrets:\n  A: {as: file, path: /var/run/a}\n  B: {as: file, path: /run/a/b}\n", 5, "B: the path \"/run/a/b\" is below the file \"/var/run/a\" of another secret"},
		{header + "secrets:\n  A: {as: file, path: ~/x}\n  B: {as: file, path: ~/x/y}\n", 5, `B: the path "~/x/y" is below the file "~/x" of another secret`},
		{header + "secrets:\n  A: {as: file, path: /x/y/z}\n  B: {as: file, path: /x/y}\n", 5, `B: the path "/x/y/z" of another secret is below the file "/x/y"`},
		{header + "secrets: {A: {as: file, path: /x, template: \"{{value\"}}\n", 3, "A: template: {{ must be followed by the name of a field and }}, as in {{value}}"},
		{header + "secrets: {A: {as: file, path: /x, template: \"{{a b}}\"}}\n", 3, "A: template: {{ must be followed by the name of a field and }}, as in {{value}}"},
		{header + "secrets: &a {}\n", 3, "anchors"},
		{header + "secrets:\n  A: &x {env: B}\n  C: *x\n", 4, "anchors"},
		{header + "secrets:\n  A: {<<: {env: B}}\n", 4, "merge keys"},
	} {
		_, err := Parse([]byte(c.text))
		got, ok := errors.AsType[*Error](err)
		if !ok || got.Line != c.line || !strings.Contains(got.Rule, c.rule) {
			t.Errorf("%.80q:\n got %v\nwant line %d: ...%s...", c.text, err, c.line, c.rule)
		}
	}
}

// FuzzParse checks that Parse does not panic, that it accepts only valid names of secrets, and
// that its errors have at most 400 bytes.
func FuzzParse(f *testing.F) {
	f.Add([]byte(header + "secrets:\n  A:\n  b: {env: B}\n  c: {as: file, path: ~/c, mode: \"0600\", template: x}\n"))
	f.Add([]byte(header + "secrets: {}\ndescription: >\n  x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse(text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "manifest") || len(err.Error()) > 400 {
				t.Errorf("error %q", err)
			}
			return
		}
		for _, name := range m.Allowlist() {
			if !m.Allows(name) || !schema.ValidSecretName(name) {
				t.Errorf("accepted the name %q", name)
			}
		}
	})
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, to, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

// TestErrorWithoutTextHidesOnlyTextOfTheFile checks that Error.WithoutText replaces each text
// from the file with (not shown), and keeps the line and the rest of the message.
func TestErrorWithoutTextHidesOnlyTextOfTheFile(t *testing.T) {
	for text, want := range map[string]string{
		header + "secrets:\n  A: {fil: x}\n":      "manifest line 4: unknown key (not shown) in a secret: the keys are as, env, mode, path, template",
		header + "secrets:\n  A: {env: [B]}\n":    "manifest line 4: env must be a string, not a list: write env: (not shown)",
		header + "secrets:\n  a b:\n":             "manifest line 4: the secret name (not shown) does not match " + schema.SecretNamePattern,
		header + "secrets:\n  A: {as: pipe}\n":    "manifest line 4: (not shown): the value of as must be env or file",
		header + "secrets: [A]\n":                 "manifest line 3: secrets must be a mapping, not a list: write secrets: {(not shown): }",
		header + "secrets: {}\nhelpers: {a: b}\n": "manifest line 4: unknown key (not shown) in helpers: the keys are aws, docker, git, kubectl",
	} {
		_, err := Parse([]byte(text))
		if e, ok := errors.AsType[*Error](err); !ok || e.WithoutText() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, e.WithoutText(), want)
		}
	}
}
