package manifest

import (
	"path"
	"regexp"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
	"gopkg.in/yaml.v3"
)

var (
	envNamePattern  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	fileModePattern = regexp.MustCompile(`^0?[0-7]{3}$`)
)

// readSecrets parses the section secrets of a manifest. Its keys are the allowlist, and
// its values define how programs receive each secret.
func readSecrets(n *yaml.Node) (map[schema.SecretName]*schema.Injection, error) {
	switch {
	case n.Kind == yaml.SequenceNode && len(n.Content) > 0:
		return nil, errorAt(n, "secrets must be a mapping, not a list: write secrets: {%s: }", listedNames(n))
	case n.Kind != yaml.MappingNode:
		return nil, errorAt(n, "secrets must be a mapping: write secrets: {} to allow no secrets")
	}
	secrets := map[schema.SecretName]*schema.Injection{}
	variables, paths := map[string]bool{}, map[string]string{} // the keys of paths are comparable
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || !schema.ValidSecretName(key.Value) {
			return nil, errorAt(key, "the secret name %s does not match %s", quote(key.Value), constant(schema.SecretNamePattern))
		}
		name := schema.SecretName(key.Value)
		if _, duplicate := secrets[name]; duplicate {
			return nil, errorAt(key, "duplicate secret %s", name)
		}
		injection, err := readInjection(key, n.Content[i+1], name)
		if err != nil {
			return nil, err
		}
		secrets[name] = injection
		if injection.As == schema.InjectAsFile {
			p := comparablePath(injection.Path)
			if paths[p] != "" {
				return nil, errorAt(key, "two secrets use the path %s", quote(injection.Path))
			}
			for other, text := range paths {
				if strings.HasPrefix(p, other+"/") {
					return nil, errorAt(key, "%s: the path %s is below the file %s of another secret", name, quote(injection.Path), quote(text))
				}
				if strings.HasPrefix(other, p+"/") {
					return nil, errorAt(key, "%s: the path %s of another secret is below the file %s", name, quote(text), quote(injection.Path))
				}
			}
			paths[p] = injection.Path
			continue
		}
		if variables[injection.Env] {
			return nil, errorAt(key, "two secrets use the variable %s", shorten(injection.Env))
		}
		variables[injection.Env] = true
	}
	return secrets, nil
}

// defaultInjection returns the injection of a secret that has no settings in the manifest.
func defaultInjection(name schema.SecretName) schema.Injection {
	return schema.Injection{As: schema.InjectAsEnv, Env: string(name)}
}

// readInjection parses the settings of one secret and sets the defaults. It refuses forbidden
// variables, even if the name of the variable is only the default, which is the name of the
// secret.
func readInjection(key, n *yaml.Node, name schema.SecretName) (*schema.Injection, error) {
	in := &schema.Injection{}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag != "!!null": // the value can be a secret, so the error does not quote it
		return nil, errorAt(n, "%s: leave the value empty, because the manifest contains only names: the values are in the sidecar's store", name)
	case n.Kind == yaml.SequenceNode:
		return nil, errorAt(n, "%s must be a mapping", name)
	}
	if n.Kind != yaml.ScalarNode || n.Tag != "!!null" {
		injectAs := (*string)(&in.As)
		targets := map[string]*string{"as": injectAs, "env": &in.Env, "path": &in.Path, "mode": &in.Mode, "template": &in.Template}
		readers := map[string]func(*yaml.Node) error{}
		for field, target := range targets {
			readers[field] = func(n *yaml.Node) (err error) {
				*target, err = readString(n, constant(field))
				if err == nil && *target == "" {
					err = errorAt(n, "%s is empty", constant(field))
				}
				return err
			}
		}
		if err := readFields(n, "a secret", readers); err != nil {
			return nil, err
		}
	}
	switch in.As {
	case "", schema.InjectAsEnv:
		in.As = schema.InjectAsEnv
		if in.Path+in.Mode+in.Template != "" {
			return nil, errorAt(key, "%s: path, mode, and template are allowed only with as: file", name)
		}
		if in.Env == "" {
			in.Env = string(name)
		}
		if !envNamePattern.MatchString(in.Env) {
			return nil, errorAt(key, "%s: %s is not a valid variable name: set another name with env:", name, quote(in.Env))
		}
		if rule, forbidden := findForbidden(in.Env); forbidden {
			return nil, errorAt(key, "%s: the variable %s can never be set, because %s: use another variable with env:, or as: file", name, shorten(in.Env), rule.sentence(in.Env))
		}
	case schema.InjectAsFile:
		if in.Env != "" {
			return nil, errorAt(key, "%s: env is allowed only with as: env", name)
		}
		if err := checkPath(key, name, in.Path); err != nil {
			return nil, err
		}
		if in.Mode == "" {
			in.Mode = "0600"
		}
		if !fileModePattern.MatchString(in.Mode) {
			return nil, errorAt(key, `%s: mode must be an octal number in quotes, for example "0600"`, name)
		}
		if !validTemplate(in.Template) {
			return nil, errorAt(key, "%s: template: {{ must be followed by the name of a field and }}, as in {{value}}", name)
		}
	default:
		return nil, errorAt(key, "%s: the value of as must be env or file", name)
	}
	return in, nil
}

// validTemplate reports whether each {{ in a template is followed by a valid name and }}. It
// cannot check whether the secret has a field with this name, because the manifest does not
// contain the fields.
func validTemplate(template string) bool {
	for {
		_, rest, found := strings.Cut(template, "{{")
		if !found {
			return true
		}
		field, remainder, closed := strings.Cut(rest, "}}")
		if !closed || !schema.ValidSecretName(strings.TrimSpace(field)) {
			return false
		}
		template = remainder
	}
}

// listedNames formats the names in a list as keys of a YAML mapping, for an error message that
// shows the mapping. If an item of the list is not the name of a secret, or if the names are
// too long for an error, listedNames returns NAME.
func listedNames(list *yaml.Node) string {
	var names []string
	for _, item := range list.Content {
		if item.Kind != yaml.ScalarNode || !schema.ValidSecretName(item.Value) {
			return "NAME"
		}
		names = append(names, item.Value)
	}
	const maxText = 200
	if text := strings.Join(names, ": , "); len(text) <= maxText {
		return text
	}
	return "NAME"
}

// maxPath is the length of the longest path, in bytes, that Linux accepts.
const maxPath = 4095

func checkPath(key *yaml.Node, name schema.SecretName, p string) error {
	rest, underHome := strings.CutPrefix(p, "~/")
	switch {
	case p == "":
		return errorAt(key, "%s: path is missing: as: file needs a path", name)
	case !underHome && !path.IsAbs(p):
		return errorAt(key, "%s: path must be absolute or start with ~/", name)
	case len(p) > maxPath:
		return errorAt(key, "%s: path must have at most %d bytes", name, maxPath)
	case strings.ContainsRune(p, 0):
		return errorAt(key, "%s: path contains a NUL byte", name)
	case underHome && (rest == "" || path.Clean("/"+rest) != "/"+rest), !underHome && path.Clean(p) != p, p == "/":
		return errorAt(key, "%s: path must name a file and must not contain .., ., or double slashes", name)
	}
	return nil
}
