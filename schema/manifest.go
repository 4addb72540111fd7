package schema

// Manifest is a project's manifest, which is a YAML file of at most MaxManifest bytes.
// Its path is .devcontainer/keyhatch.yaml. If that file does not exist, its path is
// .keyhatch/manifest.yaml. Unknown keys and duplicate keys are errors.
type Manifest struct {
	// SchemaVersion is the version of the manifest's format. It must be equal to
	// ManifestVersion.
	SchemaVersion int `json:"schema_version"`
	// Project is the name under which the project is registered, unless the operator
	// chooses another name.
	Project ProjectName `json:"project"`
	// Description is a text for people. It can have at most MaxDescription characters.
	Description string `json:"description,omitempty"`
	// Secrets is the allowlist. A project can fetch only the secrets whose names are keys
	// of this map. Each value describes how the secret is injected. The value null means
	// that the secret is injected as an environment variable with the name of the secret.
	// An empty map is valid and allows no secret.
	Secrets map[SecretName]*Injection `json:"secrets"`
	// Helpers assigns secrets to the credential helpers of git, docker, aws, and kubectl.
	// Each of these secrets must also be on the allowlist.
	Helpers *Helpers `json:"helpers,omitempty"`
}

// Helpers assigns secrets to the credential helpers of other tools.
type Helpers struct {
	// Git contains one login for each host. Two logins for the same URL are an error, for
	// example the hosts github.com and https://github.com:443.
	Git []Login `json:"git,omitempty"`
	// Docker contains one login for each registry. Two logins for the same URL are an error.
	Docker []Login `json:"docker,omitempty"`
	// AWS is the name of a bundle with the fields aws_access_key_id and
	// aws_secret_access_key. The fields aws_session_token and expiration are optional.
	AWS SecretName `json:"aws,omitempty"`
	// Kubectl is the name of a secret, which is a token or a bundle. A bundle has the
	// field token, or the two fields clientCertificateData and clientKeyData. The field
	// expirationTimestamp of a bundle is optional.
	Kubectl SecretName `json:"kubectl,omitempty"`
}

// Login assigns a secret to a host, so that a tool can log in to this host.
type Login struct {
	// Host is a host name or an address in lower case, with a port if the port is not the
	// default port. Without http:// or https://, the login is used only for https. To use the
	// login for a server without TLS, write http://HOST. The whole host, with http:// and the
	// port, has at most 253 characters.
	Host string `json:"host"`
	// Secret is the name of a secret, which is a password, a token, or a bundle with the
	// fields username and password.
	Secret SecretName `json:"secret"`
	// Username is the user name for a secret that is not a bundle. For git, the default
	// is x-access-token. For docker, a user name is required.
	Username string `json:"username,omitempty"`
}

// Injection describes how the programs of a project receive a secret.
type Injection struct {
	// As is the method of injection, env or file. The default is env.
	As InjectAs `json:"as,omitempty"`
	// Env is the name of the environment variable. The default is the name of the secret. A
	// manifest can never set some variables, for example LD_PRELOAD or BASH_ENV, because a
	// program could run the value of such a variable as code, or could use the value as an
	// option of a loader, a shell, or an interpreter. If env is absent, the variable has the
	// name of the secret, so this name must not be the name of a forbidden variable.
	Env string `json:"env,omitempty"`
	// Path is the path of the file if the method of injection is file. The path must be absolute
	// or begin with ~/, must have at most 4095 bytes, and must not be below the path of another
	// secret. keyhatch stores the file in memory, and creates a link to the file at this path. If
	// another file already exists at this path, keyhatch does not replace it.
	Path string `json:"path,omitempty"`
	// Mode is the mode of the file in octal. The default is "0600".
	Mode string `json:"mode,omitempty"`
	// Template is the text of the file. If the secret is a bundle, keyhatch replaces {{NAME}}
	// with the field NAME of the bundle. If the secret is not a bundle, keyhatch replaces
	// {{value}} with the value of the secret. A placeholder for a field that does not exist is
	// an error. keyhatch does not replace placeholders in inserted values. A template cannot
	// contain a literal {{. Without a template, the file contains the value of the secret, or
	// the JSON text of a bundle.
	Template string `json:"template,omitempty"`
}

// InjectAs is a method of injection.
type InjectAs string

// The methods of injection.
const (
	InjectAsEnv  InjectAs = "env"
	InjectAsFile InjectAs = "file"
)
