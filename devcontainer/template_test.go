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
		"{{b.c}}":         "{{a}}", // and not A
		"{{re}}{{e}}\n":   `$1 \1 ${a} }}` + "\n",
		"$1 \\1 {{a}} $&": "$1 \\1 A $&",
	} {
		if got, err := fillTemplate(template, fields); got != want || err != nil {
			t.Errorf("%q: %q, %v, want %q", template, got, err, want)
		}
	}
	for template, wantMessage := range map[string]string{
		"{{missing}}": "no field missing", "{{a": "behind {{", "{{}}": "behind {{", "{{ if a }}": "behind {{", "{{{a}}": "behind {{",
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
		want     string // "" for an error
	}{
		"bare text":          {"", schema.SecretValue{Value: &text}, "TRIPWIRE"},
		"bare bytes":         {"", schema.SecretValue{ValueB64: []byte{0, 255}}, "\x00\xff"},
		"bare bundle":        {"", schema.SecretValue{Value: &bundle, Bundle: true}, bundle},
		"text":               {"<{{value}}>", schema.SecretValue{Value: &text}, "<TRIPWIRE>"},
		"bytes":              {"<{{value}}>", schema.SecretValue{ValueB64: []byte{0, 255}}, "<\x00\xff>"},
		"bundle":             {"{{x}}{{value}}", schema.SecretValue{Value: &bundle, Bundle: true}, "é\nv"},
		"text like a bundle": {"{{x}}", schema.SecretValue{Value: &bundle}, ""},
		"odd bundle":         {"{{x}}", schema.SecretValue{Value: &text, Bundle: true}, ""},
		"nothing":            {"{{x}}", schema.SecretValue{}, ""},
	} {
		got, err := fileContent("A", c.template, c.value)
		if string(got) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "TRIPWIRE") {
			t.Errorf("%s: the error holds the value", name)
		}
	}
}
