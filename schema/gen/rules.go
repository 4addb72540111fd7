package main

import (
	"encoding/json"
	"strconv"

	"github.com/invopop/jsonschema"
	"github.com/keyhatch/keyhatch/schema"
)

// publishedLimits contains the limits that are published as x-limits, because the
// descriptions in the JSON Schema refer to these limits by their Go names. MaxWait is in
// milliseconds, MaxDescription is in characters, the depths are in levels, and all other
// limits are in bytes.
var publishedLimits = map[string]int64{
	"MaxRequest":       schema.MaxRequest,
	"MaxPush":          schema.MaxPush,
	"MaxAuth":          schema.MaxAuth,
	"MaxResponse":      schema.MaxResponse,
	"MaxDepth":         schema.MaxDepth,
	"MaxResponseDepth": schema.MaxResponseDepth,
	"MaxManifest":      schema.MaxManifest,
	"MaxDescription":   schema.MaxDescription,
	"MaxWait":          schema.MaxWait.Milliseconds(),
}

// scalarDefinitions contains the definitions of the named types that are not structs or
// that have their own JSON encoding. The keys are the names of the Go types.
var scalarDefinitions = map[string]func() *jsonschema.Schema{
	"SecretName": func() *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: schema.SecretNamePattern}
	},
	"ProjectName": func() *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: schema.ProjectNamePattern}
	},
	"DevcontainerID": func() *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: schema.DevcontainerIDPattern}
	},
	"Code":            func() *jsonschema.Schema { return enumOf(schema.Codes) },
	"Memory":          func() *jsonschema.Schema { return enumOf(schema.MemoryKinds) },
	"DescriptorStore": func() *jsonschema.Schema { return enumOf(schema.DescriptorStores) },
	"ProblemKind":     func() *jsonschema.Schema { return enumOf(schema.ProblemKinds) },
	"InjectAs":        func() *jsonschema.Schema { return enumOf([]schema.InjectAs{schema.InjectAsEnv, schema.InjectAsFile}) },
	"Value": func() *jsonschema.Schema { // describes the output of Value.MarshalJSON
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

func enumOf[T any](values []T) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string"}
	for _, v := range values {
		s.Enum = append(s.Enum, v)
	}
	return s
}

// protocolRules contains the rules that the wire types cannot express. A key is the name
// of a definition, or the name of a definition and of one of its properties.
var protocolRules = map[string]func(*jsonschema.Schema){
	"PushRequest": func(s *jsonschema.Schema) {
		s.AnyOf = []*jsonschema.Schema{requireProperty("secrets"), requireProperty("secrets_b64")}
	},

	"RegisterRequest.project_path": patternRule(`^/`),
	"RegisterRequest.manifest":     maxLengthRule(schema.MaxManifest),
	"ReloadRequest.manifest":       maxLengthRule(schema.MaxManifest),

	"AuthRequest.token": patternRule(schema.AdminTokenPattern),

	"GetRequest.wait_ms":     addWaitLimit,
	"GetManyRequest.wait_ms": addWaitLimit,
	"GetManyRequest.names":   func(s *jsonschema.Schema) { s.UniqueItems = true },

	"GetResponse": oneValueRule,
	"SecretValue": oneValueRule,

	"Login.host":     patternRule(schema.LoginHostPattern),
	"Login.username": patternRule(schema.LoginUsernamePattern),

	"AdminPingResponse.protocol_version":   versionRule,
	"ProjectPingResponse.protocol_version": versionRule,
	"StatusResponse.protocol_version":      versionRule,
	"BrokerStarted.protocol_version":       versionRule,
	"ProjectStatus.manifest_sha256":        patternRule(`^[0-9a-f]{64}$`),
}

// manifestRules contains the rules for manifests that a JSON Schema can express. Package
// manifest enforces these rules and further rules.
var manifestRules = map[string]func(*jsonschema.Schema){
	"Manifest.description": maxLengthRule(schema.MaxDescription),
	"Injection":            injectionRule,
	"Injection.env":        patternRule(`^[A-Za-z_][A-Za-z0-9_]*$`),
	"Injection.path":       patternRule(`^(/|~/).`),
	"Injection.mode":       patternRule(`^0?[0-7]{3}$`),
	"Injection.template":   minLengthRule(1),
	"Login.host":           patternRule(schema.LoginHostPattern),
	"Login.username":       patternRule(schema.LoginUsernamePattern),
	"Manifest.secrets": func(s *jsonschema.Schema) {
		s.AdditionalProperties = &jsonschema.Schema{OneOf: []*jsonschema.Schema{s.AdditionalProperties, {Type: "null"}}}
	},
}

// injectionRule describes which fields of an injection can be combined. A secret that is
// injected as a file must have a path, and must not have env. A secret that is injected
// as an environment variable must not have path, mode, or template.
func injectionRule(s *jsonschema.Schema) {
	isFile := requireProperty("as")
	isFile.Properties = jsonschema.NewProperties()
	isFile.Properties.Set("as", &jsonschema.Schema{Const: schema.InjectAsFile})
	s.If = isFile
	s.Then = requireProperty("path")
	s.Then.Not = requireProperty("env")
	s.Else = &jsonschema.Schema{Not: &jsonschema.Schema{
		AnyOf: []*jsonschema.Schema{requireProperty("path"), requireProperty("mode"), requireProperty("template")},
	}}
}

func requireProperty(name string) *jsonschema.Schema {
	return &jsonschema.Schema{Required: []string{name}}
}

// oneValueRule requires that a message contains exactly one of value and value_b64.
func oneValueRule(s *jsonschema.Schema) {
	s.OneOf = []*jsonschema.Schema{requireProperty("value"), requireProperty("value_b64")}
}

func patternRule(p string) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) { s.Pattern = p }
}

// maxLengthRule limits a string to n characters. If the broker's limit is n bytes, the
// schema accepts longer strings than the broker, because a character can have several
// bytes.
func maxLengthRule(n uint64) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) { s.MaxLength = &n }
}

func minLengthRule(n uint64) func(*jsonschema.Schema) {
	return func(s *jsonschema.Schema) { s.MinLength = &n }
}

func addWaitLimit(s *jsonschema.Schema) {
	s.Minimum = "0"
	s.Maximum = json.Number(strconv.FormatInt(schema.MaxWait.Milliseconds(), 10))
}

func versionRule(s *jsonschema.Schema) { s.Const = schema.ProtocolVersion }
