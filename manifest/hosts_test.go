package manifest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestNewHosts compares two manifests. NewHosts must return each new server, in logins and in
// several kinds of files for credentials, and no server that the old manifest also has.
func TestNewHosts(t *testing.T) {
	file := func(path, template string) string {
		return fmt.Sprintf("secrets: {A: {as: file, path: %q, template: %q}, B: }\n", path, template)
	}
	const evil = "evil.example in ~/"
	for name, c := range map[string]struct {
		old, new string
		want     []string
	}{
		"nothing":            {"secrets: {A: }\n", "secrets: {A: , B: }\n", nil},
		"a new login":        {"secrets: {A: }\nhelpers: {git: [{host: a.example, secret: A}]}\n", "secrets: {A: }\nhelpers: {git: [{host: a.example, secret: A}, {host: b.example, secret: A}], docker: [{host: a.example, secret: A}]}\n", []string{"docker a.example", "git b.example"}},
		"a changed secret":   {"secrets: {A: , B: }\nhelpers: {git: [{host: a.example, secret: A}]}\n", "secrets: {A: , B: }\nhelpers: {git: [{host: a.example, secret: B}]}\n", []string{"git a.example"}},
		"a removed login":    {"secrets: {A: }\nhelpers: {git: [{host: a.example, secret: A}]}\n", "secrets: {A: }\n", nil},
		"another host":       {file("~/.netrc", "machine good.example\n"), file("~/.netrc", "machine good.example\nmachine evil.example\n"), []string{evil + ".netrc"}},
		"the same host":      {file("~/.netrc", "machine good.example\n"), file("~/.netrc", "# c\nmachine good.example\n"), nil},
		"another path":       {file("~/.netrc", "machine good.example\n"), file("~/_netrc", "machine good.example\n"), []string{"good.example in ~/_netrc"}},
		"a word":             {"secrets: {A: }\n", file("~/.netrc", "machine\n evil login\n"), []string{"evil in ~/.netrc"}},
		"a divided word":     {"secrets: {A: }\n", file("~/.netrc", "machine ev{{e}}il.example\n"), []string{evil + ".netrc"}},
		"npm":                {"secrets: {A: }\n", file("~/.npmrc", "@c:registry=https://good.example\n//EVIL.example:8443/a/:_authToken={{value}}\n"), []string{evil[:12] + ":8443 in ~/.npmrc", "good.example in ~/.npmrc"}},
		"npm, one word":      {"secrets: {A: }\n", file("~/.npmrc", "//evil/:_authToken={{value}}\n"), []string{"evil in ~/.npmrc"}},
		"docker":             {"secrets: {A: }\n", file("~/.docker/config.json", `{"auths":{"evil:5000":{},"[::1]:5000":{}}}`), []string{"[::1]:5000 in ~/.docker/config.json", "evil:5000 in ~/.docker/config.json"}},
		"kubectl":            {"secrets: {A: }\n", file("~/.kube/config", "clusters: [{cluster: {server: 3232235777}}, {cluster: {\"server\":\"https://evil\"}}]\n"), []string{"3232235777 in ~/.kube/config", "evil in ~/.kube/config"}},
		"psql":               {"secrets: {A: }\n", file("~/.pgpass", "evil:*:db:u:{{value}}\n1.2.3.4:5432:db:u:{{value}}\n"), []string{"1.2.3.4:5432 in ~/.pgpass", "evil in ~/.pgpass"}},
		"sbt":                {"secrets: {A: }\n", file("~/.sbt/.credentials", "host=evil\n"), []string{"evil in ~/.sbt/.credentials"}},
		"sbt, last line":     {"secrets: {A: }\n", file("~/.sbt/.credentials", "password={{value}}\nhost=evil"), []string{"evil in ~/.sbt/.credentials"}},
		"podman":             {"secrets: {A: }\n", file("/var/run/containers/0/auth.json", `{"auths":{"evil.example":{}}}`), []string{"evil.example in /var/run/containers/0/auth.json"}},
		"git":                {"secrets: {A: }\n", file("~/.git-credentials", "https://good.example:{{value}}@evil\n"), []string{"evil in ~/.git-credentials", "good.example in ~/.git-credentials"}},
		"yarn":               {"secrets: {A: }\n", file("~/.yarnrc.yml", "npmScopes: {\"@x\": {npmRegistryServer: \"https://evil.example\"}}\n"), []string{evil + ".yarnrc.yml"}},
		"a template":         {"secrets: {A: }\n", file("~/.npmrc", "{{value}}\n"), nil},
		"the secret alone":   {"secrets: {A: }\n", "secrets: {A: {as: file, path: ~/.npmrc}}\n", nil},
		"a file of settings": {"secrets: {A: }\n", file("~/.env", "A={{value}}\n"), nil},
	} {
		logins, inFiles := NewHosts(parse(t, c.old), parse(t, c.new))
		if got := slices.Concat(logins, inFiles); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	logins, inFiles := NewHosts(nil, parse(t, "secrets: {A: , F: {as: file, path: ~/.netrc, template: \"machine a\"}}\nhelpers: {git: [{host: a.example, secret: A}]}\n"))
	if !slices.Equal(logins, []string{"git a.example"}) || !slices.Equal(inFiles, []string{"a in ~/.netrc"}) {
		t.Errorf("a new project: %q, %q", logins, inFiles)
	}
}

// TestLongTemplatesAreDangerous checks that a template is marked if it has more than 40 lines,
// or more than 10 comments and empty lines. Such a template could push other changes off the
// operator's screen.
func TestLongTemplatesAreDangerous(t *testing.T) {
	line := "//h/:_authToken={{value}}\n"
	for template, want := range map[string]string{
		strings.Repeat(line, 40):                                   "",
		strings.Repeat(line, 41):                                   longTemplate,
		strings.Repeat("# c\n\n", 5) + line:                        "",
		strings.Repeat("# c\n\n", 5) + "; c\n" + line:              manyComments,
		strings.Repeat("\n", 11) + line:                            manyComments,
		line + strings.Repeat(" \t\n", 11):                         manyComments,
		"//h/:_authToken=" + strings.Repeat("x", 3000) + "\n":      longTemplate,
		"# " + strings.Repeat("x", 800) + "\n":                     manyComments,
		strings.Repeat("# c\n", 50):                                longTemplate,
		strings.Repeat("\n", 11) + "{{value}}":                     manyComments,
		"script-shell=x\n" + strings.Repeat("# c\n", 11):           extraSettings + "; " + manyComments,
		"# {{value}}\n{{value}}\n" + strings.Repeat("\t# c\n", 10): manyComments,
	} {
		if got := danger("~/.npmrc", "0600", template); !strings.HasSuffix(got, want) || want == "" && got != "" {
			t.Errorf("the danger is %q, want %q, with\n%s", got, want, template)
		}
	}
}
