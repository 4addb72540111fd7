package devcontainer_test

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const (
	featureFile  = "feature/keyhatch/devcontainer-feature.json"
	templateDir  = "template/keyhatch-sidecar/"
	templateFile = templateDir + "devcontainer-template.json"
)

// TestAssets holds the Feature's and the template's metadata to the rules, and
// sees each kind of mistake found: the Dev Container CLI accepts nearly all.
func TestAssets(t *testing.T) {
	schema, err := os.ReadFile("testdata/assets.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("assets.json", document); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file, definition string
		wrong            [][2]string // old, new
	}{
		{featureFile, "feature", [][2]string{
			{`"type": "bind"`, `"type": "tmpfs"`},
			{`"type": "bind"`, `"type": "bind", "readonly": true`},
			{`"default": false`, `"default": "false"`},
			{`"mounts"`, `"mount"`},
			{`"/run/keyhatch/broker.sock"`, `"/run/${devcontainerId}"`},
			{`"0.1.0"`, `"1"`},
		}},
		{templateFile, "template", [][2]string{
			{`"proposals"`, `"suggestions"`},
			{`"default": "none"`, `"default": false`},
			{`"id": "keyhatch-sidecar"`, `"id": "sidecar"`},
		}},
	} {
		text := read(t, c.file)
		validate := func(text string) error {
			definition, err := compiler.Compile("assets.json#/$defs/" + c.definition)
			if err != nil {
				t.Fatal(err)
			}
			instance, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			return definition.Validate(instance)
		}
		if err := validate(text); err != nil {
			t.Errorf("%s: %v", c.file, err)
		}
		for _, change := range c.wrong {
			wrong := strings.Replace(text, change[0], change[1], 1)
			if wrong == text {
				t.Fatalf("%s has no %s", c.file, change[0])
			}
			if validate(wrong) == nil {
				t.Errorf("%s: %s is not noticed", c.file, change[1])
			}
		}
	}
}

// What the template's files ask for is an option, and each option is asked for.
func TestTemplateOptions(t *testing.T) {
	options := regexp.MustCompile(`(?m)^    "([a-z]+)": \{$`)
	asked := regexp.MustCompile(`\$\{templateOption:([a-z]+)\}`)
	declared, used := map[string]bool{}, map[string]bool{}
	for _, match := range options.FindAllStringSubmatch(read(t, templateFile), -1) {
		declared[match[1]] = true
	}
	files := read(t, templateDir+".devcontainer/devcontainer.json") + read(t, templateDir+".devcontainer/Dockerfile")
	for _, match := range asked.FindAllStringSubmatch(files, -1) {
		used[match[1]] = true
		if !declared[match[1]] {
			t.Errorf("%s is no option", match[0])
		}
	}
	if len(declared) == 0 || len(used) != len(declared) {
		t.Errorf("declared %v, used %v", declared, used)
	}
}

// The Feature and the template are released with the commands.
func TestAssetVersions(t *testing.T) {
	version := regexp.MustCompile(`(?m)^VERSION := (.*)$`).FindStringSubmatch(read(t, "../Makefile"))
	if version == nil {
		t.Fatal("the Makefile names no version")
	}
	for _, file := range []string{featureFile, templateFile} {
		if !strings.Contains(read(t, file), `"version": "`+version[1]+`"`) {
			t.Errorf("%s is not of version %s", file, version[1])
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
