package schema_test

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// A validator validates messages against the definitions in one published JSON Schema.
type validator struct {
	compiler *jsonschema.Compiler
	file     string
}

func newValidator(t *testing.T, file string) *validator {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	compiler.AssertContent()
	if err := compiler.AddResource(file, document); err != nil {
		t.Fatal(err)
	}
	return &validator{compiler, file}
}

// validate validates a line against the definition of messageType.
func (c *validator) validate(line string, messageType any) error {
	return c.validateAgainst("#/$defs/"+reflect.TypeOf(messageType).Name(), line)
}

// validateAgainst validates a text against the definition to which the JSON pointer
// leads. If pointer is empty, it validates the text against the whole document.
func (c *validator) validateAgainst(pointer, text string) error {
	definition, err := c.compiler.Compile(c.file + pointer)
	if err != nil {
		return err
	}
	instance, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return definition.Validate(instance)
}

func (c *validator) checkLine(t *testing.T, lineNumber int, line string, messageType any) {
	t.Helper()
	if err := c.validate(line, messageType); err != nil {
		t.Errorf("PROTOCOL.md:%d: %v", lineNumber, err)
	}
}

// TestSchemaRejectsInvalidMessages checks that the schema accepts valid messages, and
// rejects messages that the broker also rejects. A JSON Schema cannot express every rule
// of the broker.
func TestSchemaRejectsInvalidMessages(t *testing.T) {
	v := newValidator(t, "keyhatch.v2.json")
	for _, tc := range []struct {
		line        string
		messageType any
		valid       bool
	}{
		{`{"op":"get","name":"A","new":1}`, schema.GetRequest{}, true},
		{`{"op":"get","name":"A","wait_ms":300000}`, schema.GetRequest{}, true},
		{`{"op":"get"}`, schema.GetRequest{}, false},
		{`{"op":"get-many","name":"A"}`, schema.GetRequest{}, false},
		{`{"op":"get","name":"-A"}`, schema.GetRequest{}, false},
		{`{"op":"get","name":"A","wait_ms":300001}`, schema.GetRequest{}, false},
		{`{"op":"get","name":"A","wait_ms":-1}`, schema.GetRequest{}, false},
		{`{"op":"get-many","names":["A","A"]}`, schema.GetManyRequest{}, false},
		{`{"op":"push-creds","secrets":{}}`, schema.PushRequest{}, true},
		{`{"op":"push-creds","secrets_b64":{"A":"AP8="}}`, schema.PushRequest{}, true},
		{`{"op":"push-creds"}`, schema.PushRequest{}, false},
		{`{"op":"push-creds","secrets":{"a b":"x"}}`, schema.PushRequest{}, false},
		{`{"op":"push-creds","secrets":{"A":1}}`, schema.PushRequest{}, false},
		{`{"op":"push-creds","secrets":{"A":{"b":{}}}}`, schema.PushRequest{}, false},
		{`{"op":"push-creds","secrets":{"A":{"b c":"x"}}}`, schema.PushRequest{}, false},
		{`{"op":"push-creds","secrets_b64":{"A":"!"}}`, schema.PushRequest{}, false},
		{`{"op":"register","name":"API","project_path":"/API"}`, schema.RegisterRequest{}, false},
		{`{"op":"register","name":"api","project_path":"api"}`, schema.RegisterRequest{}, false},
		{`{"op":"register","name":"api","project_path":"/api","allow_uids":[-1]}`, schema.RegisterRequest{}, false},
		{`{"ok":true}`, schema.GetResponse{}, false},
		{`{"ok":true,"value":"x","value_b64":"AP8="}`, schema.GetResponse{}, false},
		{`{"ok":false,"value":"x"}`, schema.GetResponse{}, false},
		{`{"ok":true,"code":"denied","message":""}`, schema.ErrorResponse{}, false},
		{`{"ok":false,"code":"other","message":""}`, schema.ErrorResponse{}, false},
	} {
		if err := v.validate(tc.line, tc.messageType); (err == nil) != tc.valid {
			t.Errorf("validating %s returned the error %v, want valid=%v", tc.line, err, tc.valid)
		}
	}
}

// TestManifestSchemaRejectsInvalidManifests checks that the schema of the manifest
// rejects manifests that break a rule. It must, for example, reject unknown keys, so that
// an editor can report a misspelled key.
func TestManifestSchemaRejectsInvalidManifests(t *testing.T) {
	v := newValidator(t, "manifest.v1.json")
	for text, valid := range map[string]bool{
		`{"schema_version":1,"project":"api","secrets":{}}`:                                                                                true,
		`{"schema_version":1,"project":"api","description":"x","secrets":{"A":null,"B":{}}}`:                                               true,
		`{"schema_version":1,"project":"api","secrets":{"A":{"env":"B"}}}`:                                                                 true,
		`{"schema_version":1,"project":"api","secrets":{"A":{"as":"file","path":"~/.aws/credentials","mode":"0600","template":"{{id}}"}}}`: true,
		`{"schema_version":1,"project":"api","secrets":{"A":{"as":"env","env":"B"}}}`:                                                      true,
		`{"schema_version":1,"project":"api","secrets":{"A":{"as":"file","path":"/run/x"}}}`:                                               true,
		`{"schema_version":1,"project":"api","secrets":{"A":{"as":"file"}}}`:                                                               false,
		`{"schema_version":1,"project":"api","secrets":{"A":{"as":"file","path":"x"}}}`:                                                    false,
		`{"schema_version":1,"project":"api","secrets":{"A":{"as":"file","path":"/"}}}`:                                                    false,
		`{"schema_version":1,"project":"api","secrets":{"A":{"as":"file","path":"/x","env":"B"}}}`:                                         false,
		`{"schema_version":1,"project":"api","secrets":{"A":{"as":"file","path":"/x","mode":"9"}}}`:                                        false,
		`{"schema_version":1,"project":"api","secrets":{"A":{"path":"/x"}}}`:                                                               false,
		`{"schema_version":1,"project":"api","secrets":{"A":{"as":"env","mode":"0600"}}}`:                                                  false,
		`{"schema_version":1,"project":"api","secrets":{"A":{"env":"1B"}}}`:                                                                false,
		`{"schema_version":1,"project":"api","secrets":{"A":{"env":""}}}`:                                                                  false,
		`{"schema_version":2,"project":"api","secrets":{}}`:                                                                                false,
		`{"schema_version":1,"project":"API","secrets":{}}`:                                                                                false,
		`{"schema_version":1,"project":"api"}`:                                                                                             false,
		`{"schema_version":1,"project":"api","secrets":{},"other":1}`:                                                                      false,
		`{"schema_version":1,"project":"api","secrets":{"a b":null}}`:                                                                      false,
		`{"schema_version":1,"project":"api","secrets":{"A":{"envv":"B"}}}`:                                                                false,
		`{"schema_version":1,"project":"api","secrets":{"A":{"as":"stdin"}}}`:                                                              false,
		`{"schema_version":1,"project":"api","secrets":["A"]}`:                                                                             false,
		`{"schema_version":1,"project":"api","secrets":{},"description":"` + strings.Repeat("x", schema.MaxDescription+1) + `"}`:           false,
	} {
		if err := v.validateAgainst("", text); (err == nil) != valid {
			t.Errorf("validating %s returned the error %v, want valid=%v", text, err, valid)
		}
	}
}
