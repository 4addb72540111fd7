package devcontainer

import (
	"errors"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

func TestFillTemplate(t *testing.T) {
	fields := map[string]string{"a": "A", "b.c": "{{a}}", "e": "", "re": `$1 \1 ${a} }}`}
	for template, want := range map[string]string{
		"":                "",
		"plain } { }}":    "plain } { }}",
		"{{a}}":           "A",
		"<{{ a }}{{a}}>":  "<AA>",
		"{{b.c}}":         "{{a}}", // placeholders in an inserted value are not replaced
		"{{re}}{{e}}\n":   `$1 \1 ${a} }}` + "\n",
		"$1 \\1 {{a}} $&": "$1 \\1 A $&",
	} {
		if got, err := fillTemplate(template, fields); got != want || err != nil {
			t.Errorf("%q: %q, %v, want %q", template, got, err, want)
		}
	}
	for template, wantMessage := range map[string]string{
		"{{missing}}": "does not have a field missing", "{{a": "{{ must be followed", "{{}}": "{{ must be followed", "{{ if a }}": "{{ must be followed", "{{{a}}": "{{ must be followed",
	} {
		if got, err := fillTemplate(template, fields); got != "" || !errors.Is(err, ErrTemplate) || !strings.Contains(err.Error(), wantMessage) {
			t.Errorf("%q: %q, %v, want %q", template, got, err, wantMessage)
		}
	}
}

func TestFileContent(t *testing.T) {
	text, bundle := "TRIPWIRE", `{"value":"v","x":"\u00e9\n"}`
	for name, c := range map[string]struct {
		template string
		value    schema.SecretValue
		want     string // "" if an error is expected
	}{
		"text, no template":   {"", schema.SecretValue{Value: &text}, "TRIPWIRE"},
		"bytes, no template":  {"", schema.SecretValue{ValueB64: []byte{0, 255}}, "\x00\xff"},
		"bundle, no template": {"", schema.SecretValue{Value: &bundle, Bundle: true}, bundle},
		"text":                {"<{{value}}>", schema.SecretValue{Value: &text}, "<TRIPWIRE>"},
		"bytes":               {"<{{value}}>", schema.SecretValue{ValueB64: []byte{0, 255}}, "<\x00\xff>"},
		"bundle":              {"{{x}}{{value}}", schema.SecretValue{Value: &bundle, Bundle: true}, "é\nv"},
		"text like a bundle":  {"{{x}}", schema.SecretValue{Value: &bundle}, ""},
		"invalid bundle":      {"{{x}}", schema.SecretValue{Value: &text, Bundle: true}, ""},
		"no value":            {"{{x}}", schema.SecretValue{}, ""},
	} {
		got, err := fileContent("A", c.template, c.value)
		if string(got) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: fileContent returned %q, error %v, want %q", name, got, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "TRIPWIRE") {
			t.Errorf("%s: the error contains the value", name)
		}
	}
}
