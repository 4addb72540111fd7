package main

import (
	"encoding/json"
	"strconv"

	"github.com/invopop/jsonschema"
	"github.com/keyhatch/keyhatch/schema"
)

// limits are published by the names that the comments use. Lengths are in bytes,
// times in milliseconds.
var limits = map[string]int64{
	"MaxRequest":       schema.MaxRequest,
	"MaxPush":          schema.MaxPush,
	"MaxResponse":      schema.MaxResponse,
	"MaxDepth":         schema.MaxDepth,
	"MaxResponseDepth": schema.MaxResponseDepth,
	"MaxManifest":      schema.MaxManifest,
	"MaxDescription":   schema.MaxDescription,
	"MaxWait":          schema.MaxWait.Milliseconds(),
}

// scalars are the named types that are no structs, as they are on the wire.
var scalars = map[string]func() *jsonschema.Schema{
	"SecretName": func() *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: schema.SecretNamePattern}
	},
	"ProjectName": func() *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: schema.ProjectNamePattern}
	},
	"DevcontainerID": func() *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: schema.DevcontainerIDPattern}
	},
	"Code":            func() *jsonschema.Schema { return enum(schema.Codes) },
	"Memory":          func() *jsonschema.Schema { return enum(schema.Memories) },
	"DescriptorStore": func() *jsonschema.Schema { return enum(schema.DescriptorStores) },
	"InjectAs":        func() *jsonschema.Schema { return enum([]schema.InjectAs{schema.AsEnv, schema.AsFile}) },
	"Value": func() *jsonschema.Schema { // what Value.MarshalJSON writes
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
			{Type: "string"},
			{
				Type:                 "object",
				PropertyNames:        &jsonschema.Schema{Ref: "#/$defs/SecretName"},
				AdditionalProperties: &jsonschema.Schema{Type: "string"},
			},
		}}
	},
}

func enum[T any](values []T) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string"}
	for _, v := range values {
		s.Enum = append(s.Enum, v)
	}
	return s
}

// protocolRules say what the wire types cannot, by definition and property.
var protocolRules = map[string]func(*jsonschema.Schema){
	"PushRequest": func(s *jsonschema.Schema) {
		s.AnyOf = []*jsonschema.Schema{required("secrets"), required("secrets_b64")}
	},

	"RegisterRequest.project_path": pattern(`^/`),
	"RegisterRequest.manifest":     maxLength(schema.MaxManifest),
	"ReloadRequest.manifest":       maxLength(schema.MaxManifest),

	"GetRequest.wait_ms":     wait,
	"GetManyRequest.wait_ms": wait,
	"GetManyRequest.names":   func(s *jsonschema.Schema) { s.UniqueItems = true },

	"GetResponse": oneValue,
	"SecretValue": oneValue,

	"Login.host":     pattern(schema.LoginHostPattern),
	"Login.username": pattern(schema.LoginUsernamePattern),

	"AdminPingResponse.protocol_version":   version,
	"ProjectPingResponse.protocol_version": version,
	"StatusResponse.protocol_version":      version,
	"BrokerStarted.protocol_version":       version,
	"ProjectStatus.manifest_sha256":        pattern(`^[0-9a-f]{64}$`),
}

// manifestRules are those that can be said here of the rules of package
// manifest, which are what counts.
var manifestRules = map[string]func(*jsonschema.Schema){
	"Manifest.description": maxLength(schema.MaxDescription),
	"Injection":            injection,
	"Injection.env":        pattern(`^[A-Za-z_][A-Za-z0-9_]*$`),
	"Injection.path":       pattern(`^(/|~/).`),
	"Injection.mode":       pattern(`^0?[0-7]{3}$`),
	"Injection.template":   minLength(1),
	"Login.host":           pattern(schema.LoginHostPattern),
	"Login.username":       pattern(schema.LoginUsernamePattern),
	"Manifest.secrets": func(s *jsonschema.Schema) {
		s.AdditionalProperties = &jsonschema.Schema{OneOf: []*jsonschema.Schema{s.AdditionalProperties, {Type: "null"}}}
	},
}

// injection: a file has a path, and what belongs to the one way does not go with
// the other.
func injection(s *jsonschema.Schema) {
	isFile := required("as")
	isFile.Properties = jsonschema.NewProperties()
	isFile.Properties.Set("as", &jsonschema.Schema{Const: schema.AsFile})
	s.If = isFile
	s.Then = required("path")
	s.Then.Not = required("env")
	s.Else = &jsonschema.Schema{Not: &jsonschema.Schema{
		AnyOf: []*jsonschema.Schema{required("path"), required("mode"), required("template")},
	}}
}

func required(name string) *jsonschema.Schema {
	return &jsonschema.Schema{Required: []string{name}}
}

// oneValue: a secret is either text or binary.
func oneValue(s *jsonschema.Schema) {
	s.OneOf = []*jsonschema.Schema{required("value"), required("value_b64")}
}

func pattern(p string) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) { s.Pattern = p }
}

// maxLength counts characters, of which there are never more than bytes.
func maxLength(n uint64) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) { s.MaxLength = &n }
}

func minLength(n uint64) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) { s.MinLength = &n }
}

func wait(s *jsonschema.Schema) {
	s.Minimum = "0"
	s.Maximum = json.Number(strconv.FormatInt(schema.MaxWait.Milliseconds(), 10))
}

func version(s *jsonschema.Schema) { s.Const = schema.ProtocolVersion }
