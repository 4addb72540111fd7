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

// TestAssetMetadataMatchesSchema validates the metadata of the Feature and the template with
// a JSON Schema, because the Dev Container CLI accepts almost any metadata. The test also
// checks that the JSON Schema rejects typical mistakes.
func TestAssetMetadataMatchesSchema(t *testing.T) {
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
		invalidEdits     [][2]string // each edit replaces the first text with the second text
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
		text := readFile(t, c.file)
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
			t.Errorf("%s does not match the schema: %v", c.file, err)
		}
		for _, edit := range c.invalidEdits {
			edited := strings.Replace(text, edit[0], edit[1], 1)
			if edited == text {
				t.Fatalf("%s does not contain %s", c.file, edit[0])
			}
			if validate(edited) == nil {
				t.Errorf("%s: the schema accepts the wrong text %s", c.file, edit[1])
			}
		}
	}
}

// TestTemplateDeclaresTheOptionsItUses checks that the template declares every option that it
// uses, and uses every option that it declares.
func TestTemplateDeclaresTheOptionsItUses(t *testing.T) {
	declaration := regexp.MustCompile(`(?m)^    "([a-z]+)": \{$`)
	reference := regexp.MustCompile(`\$\{templateOption:([a-z]+)\}`)
	declared, used := map[string]bool{}, map[string]bool{}
	for _, match := range declaration.FindAllStringSubmatch(readFile(t, templateFile), -1) {
		declared[match[1]] = true
	}
	files := readFile(t, templateDir+".devcontainer/devcontainer.json") + readFile(t, templateDir+".devcontainer/Dockerfile")
	for _, match := range reference.FindAllStringSubmatch(files, -1) {
		used[match[1]] = true
		if !declared[match[1]] {
			t.Errorf("the template uses %s, but %s does not declare this option", match[0], templateFile)
		}
	}
	if len(declared) == 0 || len(used) != len(declared) {
		t.Errorf("the template declares the options %v and uses the options %v, want the same options", declared, used)
	}
}

// TestAssetsHaveTheReleaseVersion checks that the Feature and the template have the same
// version as the commands, because all of them are released together.
func TestAssetsHaveTheReleaseVersion(t *testing.T) {
	version := regexp.MustCompile(`(?m)^VERSION := (.*)$`).FindStringSubmatch(readFile(t, "../Makefile"))
	if version == nil {
		t.Fatal("the Makefile does not define VERSION")
	}
	for _, file := range []string{featureFile, templateFile} {
		if !strings.Contains(readFile(t, file), `"version": "`+version[1]+`"`) {
			t.Errorf("%s does not have version %s", file, version[1])
		}
	}
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
