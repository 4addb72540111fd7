package schema

// Manifest is a project's manifest, a YAML file of at most MaxManifest bytes. Its
// path is .devcontainer/keyhatch.yaml or, if that file does not exist,
// .keyhatch/manifest.yaml. Unknown and duplicate keys are errors.
type Manifest struct {
	// SchemaVersion is ManifestVersion.
	SchemaVersion int `json:"schema_version"`
	// Project is the base name of the project's directory.
	Project ProjectName `json:"project"`
	// Description is for people, at most MaxDescription characters.
	Description string `json:"description,omitempty"`
	// Secrets is the allowlist: only the secrets named by its keys can be fetched.
	// Each value describes how the secret is injected. null means an environment
	// variable of the same name. An empty map is valid and allows no secret.
	Secrets map[SecretName]*Injection `json:"secrets"`
	// Helpers assigns secrets to the credential helpers of git, docker, aws, and
	// kubectl. Each of these secrets must be in Secrets.
	Helpers *Helpers `json:"helpers,omitempty"`
}

// Helpers assigns secrets to the credential helpers of other tools.
type Helpers struct {
	// Git contains one login for each host.
	Git []Login `json:"git,omitempty"`
	// Docker contains one login for each registry.
	Docker []Login `json:"docker,omitempty"`
	// AWS names a bundle with the fields aws_access_key_id and
	// aws_secret_access_key. The fields aws_session_token and expiration are
	// optional.
	AWS SecretName `json:"aws,omitempty"`
	// Kubectl names a token or a bundle. The bundle has the field token, or the
	// fields clientCertificateData and clientKeyData. The field
	// expirationTimestamp is optional.
	Kubectl SecretName `json:"kubectl,omitempty"`
}

// Login assigns a secret to a host.
type Login struct {
	// Host is a host name or an address in lower case, with a port if the port is
	// not the default. The login is valid for https only. For http without TLS,
	// write http://HOST.
	Host string `json:"host"`
	// Secret is the password or token, or a bundle with username and password.
	Secret SecretName `json:"secret"`
	// Username is the user name if the secret is not a bundle. For git, the default
	// is x-access-token. For docker, it is required.
	Username string `json:"username,omitempty"`
}

// Injection describes how the programs of a project receive a secret.
type Injection struct {
	// As is env (the default) or file.
	As InjectAs `json:"as,omitempty"`
	// Env is the name of the environment variable. The default is the name of the
	// secret.
	Env string `json:"env,omitempty"`
	// Path is the path of the file, with as: file. It is absolute or begins with
	// ~/. keyhatch stores the file in memory, and creates a link to the file at this
	// path. If another file already exists there, keyhatch does not replace it.
	Path string `json:"path,omitempty"`
	// Mode is the mode of the file in octal. The default is "0600".
	Mode string `json:"mode,omitempty"`
	// Template is the text of the file. keyhatch replaces {{field}} with the field
	// of a bundle, and {{value}} with the value of any other secret. A field that
	// the secret does not have is an error. Inserted values are not expanded again.
	// There is no escape for a literal {{. Without a template, the file contains the
	// value of the secret, or the JSON text of a bundle.
	Template string `json:"template,omitempty"`
}

// InjectAs is a method of injection.
type InjectAs string

// The methods of injection.
const (
	InjectAsEnv  InjectAs = "env"
	InjectAsFile InjectAs = "file"
)
