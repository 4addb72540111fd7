package manifest

import (
	"strings"
	"testing"
)

func TestParseHelpers(t *testing.T) {
	const header = "schema_version: 1\nproject: api\nsecrets: {GH: , AWS: }\n"
	m, err := Parse([]byte("helpers: {git: [{host: github.com, secret: GH}, {host: 'http://localhost:3000', secret: GH, username: me}], docker: [], aws: AWS, kubectl: GH}\n" + header))
	if err != nil {
		t.Fatal(err)
	}
	if h := m.Helpers; len(h.Git) != 2 || h.Git[1].Username != "me" || h.AWS != "AWS" || h.Kubectl != "GH" {
		t.Errorf("%+v", h)
	}
	const different = "helpers: {git: [{host: a, secret: GH}, {host: 'http://a', secret: GH}, {host: 'a:80', secret: GH}, {host: 'http://a:443', secret: GH}, {host: 'a:8443', secret: GH}], docker: [{host: 'a:443', secret: GH}]}\n"
	if _, err := Parse([]byte(header + different)); err != nil {
		t.Errorf("different hosts: %v", err)
	}
	if m, err := Parse([]byte(header)); err != nil || m.Helpers != nil {
		t.Errorf("%+v, %v", m, err)
	}
	for text, want := range map[string]string{
		"helpers: git":                                                                         "must be a mapping",
		"helpers: {svn: x}":                                                                    `unknown key "svn"`,
		"helpers: {aws: OTHER}":                                                                `"OTHER" is not under secrets`,
		"helpers: {aws: [AWS]}":                                                                "must be a string",
		"helpers: {git: {host: x}}":                                                            "must be a list",
		"helpers: {git: [{secret: GH}]}":                                                       "host must be",
		"helpers: {git: [{host: github.com}]}":                                                 "secret is missing",
		"helpers: {git: [{host: github.com, secret: OTHER}]}":                                  `"OTHER" is not under secrets`,
		"helpers: {git: [{host: GitHub.com, secret: GH}]}":                                     "host must be",
		"helpers: {git: [{host: 'https://github.com/x', secret: GH}]}":                         "host must be",
		"helpers: {git: [{host: 'ssh://github.com', secret: GH}]}":                             "host must be",
		"helpers: {git: [{host: \"a\\nhelper=x\", secret: GH}]}":                               "host must be",
		"helpers: {git: [{host: a, secret: GH, username: \"x\\ny\"}]}":                         "username must be",
		"helpers: {git: [{host: a, secret: GH, token: x}]}":                                    "the keys are host, secret, username",
		"helpers: {docker: [{host: a, secret: GH}, {host: a, secret: GH}]}":                    "duplicate host a",
		"helpers: {git: [{host: a, secret: GH}, {host: 'https://a', secret: AWS}]}":            "duplicate host https://a",
		"helpers: {git: [{host: 'a:443', secret: GH}, {host: a, secret: AWS}]}":                "duplicate host a",
		"helpers: {git: [{host: 'http://a:80', secret: GH}, {host: 'http://a', secret: AWS}]}": "duplicate host http://a",
		"helpers: {git: [{host: 'a:0443', secret: GH}, {host: a, secret: AWS}]}":               "duplicate host a",
		"helpers: {git: [{host: 'a:8443', secret: GH}, {host: 'a:08443', secret: AWS}]}":       "duplicate host a:08443",
		"helpers: {git: [{host: 'a.', secret: GH}, {host: 'a:443', secret: AWS}]}":             "duplicate host a:443",
		"helpers: {git: [{host: '[::1]', secret: GH}, {host: '[0:0::1]:443', secret: AWS}]}":   "duplicate host [0:0::1]:443",
		"helpers: {git: [{host: " + strings.Repeat("a", 254) + ", secret: GH}]}":               "host must be",
	} {
		_, err := Parse([]byte(header + text + "\n"))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "line 4") {
			t.Errorf("%s: %v, want %q on line 4", text, err, want)
		}
	}
}
