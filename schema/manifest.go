package schema

// Manifest is a project's manifest: .devcontainer/keyhatch.yaml, or else
// .keyhatch/manifest.yaml, at most MaxManifest bytes of YAML. Unknown and
// duplicate keys are refused.
type Manifest struct {
	// SchemaVersion is ManifestVersion.
	SchemaVersion int `json:"schema_version"`
	// Project is the base name of the project's directory.
	Project ProjectName `json:"project"`
	// Description is for people, at most MaxDescription characters.
	Description string `json:"description,omitempty"`
	// Secrets is the allowlist: only its keys can be fetched. Each value says
	// how the secret is injected; null means as an environment variable of the
	// same name. An empty map is legal and denies everything.
	Secrets map[SecretName]*Injection `json:"secrets"`
	// Helpers says which secrets answer the credential helpers of git, docker,
	// aws and kubectl. Each must be in Secrets.
	Helpers *Helpers `json:"helpers,omitempty"`
}

// Helpers says which secret answers for what.
type Helpers struct {
	// Git has one entry for each host.
	Git []Login `json:"git,omitempty"`
	// Docker has one entry for each registry.
	Docker []Login `json:"docker,omitempty"`
	// AWS is a bundle with aws_access_key_id, aws_secret_access_key and, where
	// there are such, aws_session_token and expiration.
	AWS SecretName `json:"aws,omitempty"`
	// Kubectl is a token, or a bundle with token, or with
	// clientCertificateData and clientKeyData, and where it ends
	// expirationTimestamp.
	Kubectl SecretName `json:"kubectl,omitempty"`
}

// Login says which secret logs in at a host.
type Login struct {
	// Host is a name or an address, in lower case, with a port where it is not
	// the usual one. It is spoken to by https; a plain one must be written as
	// http://HOST.
	Host string `json:"host"`
	// Secret is the password or token, or a bundle with username and password.
	Secret SecretName `json:"secret"`
	// Username goes with a secret that is no bundle. Without it, git is told
	// x-access-token; for docker it must be given.
	Username string `json:"username,omitempty"`
}

// Injection says how a secret reaches the programs of a project.
type Injection struct {
	// As is env (the default) or file.
	As InjectAs `json:"as,omitempty"`
	// Env is the environment variable, where it is not the secret's name.
	Env string `json:"env,omitempty"`
	// Path is where the file appears, with as: file. It is absolute or begins
	// with ~/. The file itself is in memory; a link to it is put there, and
	// nothing else that is there is replaced.
	Path string `json:"path,omitempty"`
	// Mode is the file's mode in octal, "0600" where it is not given.
	Mode string `json:"mode,omitempty"`
	// Template is the file's text, where it is not the bare value (a bundle's
	// is its JSON text). {{field}} is a field of a bundle, and {{value}} any
	// other secret; a field that the secret does not have is an error. What is
	// filled in is not looked at again, and there is no way to write {{ itself.
	Template string `json:"template,omitempty"`
}

// InjectAs is a way for a secret to reach a program.
type InjectAs string

// The ways of injection.
const (
	InjectAsEnv  InjectAs = "env"
	InjectAsFile InjectAs = "file"
)
