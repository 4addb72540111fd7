package schema

// SecretName is the name of a secret, or the name of a field of a bundle. It matches
// SecretNamePattern.
type SecretName string

// ProjectName is the name of a project. It matches ProjectNamePattern.
type ProjectName string

// DevcontainerID is the value of ${devcontainerId}, as defined by the dev container
// specification. It is a hash of 52 base 32 digits that identifies the configuration of a
// dev container. It matches DevcontainerIDPattern.
type DevcontainerID string

// The patterns of names, as regular expressions for JSON Schema (ECMA 262).
const (
	SecretNamePattern     = `^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`
	ProjectNamePattern    = `^[a-z0-9][a-z0-9_-]{0,63}$`
	DevcontainerIDPattern = `^[0-9a-v]{52}$`
	LoginHostPattern      = `^(https?://)?([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?$`
	LoginUsernamePattern  = `^[!-~]{1,128}$`
	AdminTokenPattern     = `^[0-9a-f]{64}$`
)

// ValidSecretName reports whether name matches SecretNamePattern. name can also be a byte
// slice, so that a name in a buffer can be checked without a copy.
func ValidSecretName[T ~string | ~[]byte](name T) bool {
	if len(name) == 0 || len(name) > 128 {
		return false
	}
	for i := 0; i < len(name); i++ {
		if !inSecretName[name[i]] {
			return false
		}
	}
	return name[0] != '.' && name[0] != '-'
}

// inSecretName contains true for each character that a secret name can contain.
var inSecretName = func() (in [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") {
		in[c] = true
	}
	return in
}()

// ValidProjectName reports whether name matches ProjectNamePattern.
func ValidProjectName[T ~string](name T) bool {
	if len(name) == 0 || len(name) > 64 {
		return false
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case (c == '_' || c == '-') && i > 0:
		default:
			return false
		}
	}
	return true
}

// ValidDevcontainerID reports whether id matches DevcontainerIDPattern.
func ValidDevcontainerID(id DevcontainerID) bool {
	if len(id) != 52 {
		return false
	}
	for i := 0; i < len(id); i++ {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'v') {
			return false
		}
	}
	return true
}
