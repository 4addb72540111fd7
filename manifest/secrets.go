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

// readSecrets reads the allowlist, and how each secret is injected.
func readSecrets(n *yaml.Node) (map[schema.SecretName]*schema.Injection, error) {
	if n.Kind != yaml.MappingNode {
		return nil, errorAt(n, "secrets must be a mapping of names: write secrets: {} to allow none")
	}
	secrets := map[schema.SecretName]*schema.Injection{}
	variables, paths := map[string]bool{}, map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || !schema.ValidSecretName(key.Value) {
			return nil, errorAt(key, "the secret's name %s does not match %s", quote(key.Value), schema.SecretNamePattern)
		}
		name := schema.SecretName(key.Value)
		if _, duplicate := secrets[name]; duplicate {
			return nil, errorAt(key, "%s stands twice in secrets", name)
		}
		injection, err := readInjection(key, n.Content[i+1], name)
		if err != nil {
			return nil, err
		}
		secrets[name] = injection
		if injection.As == schema.InjectAsFile {
			if paths[injection.Path] {
				return nil, errorAt(key, "two secrets have the path %s", quote(injection.Path))
			}
			paths[injection.Path] = true
			continue
		}
		if variables[injection.Env] {
			return nil, errorAt(key, "two secrets have the variable %s", injection.Env)
		}
		variables[injection.Env] = true
	}
	return secrets, nil
}

// readInjection reads one secret's value and fills in the defaults.
func readInjection(key, n *yaml.Node, name schema.SecretName) (*schema.Injection, error) {
	in := &schema.Injection{}
	if n.Tag != "!!null" {
		injectAs := (*string)(&in.As)
		targets := map[string]*string{"as": injectAs, "env": &in.Env, "path": &in.Path, "mode": &in.Mode, "template": &in.Template}
		readers := map[string]func(*yaml.Node) error{}
		for field, target := range targets {
			readers[field] = func(n *yaml.Node) (err error) {
				*target, err = readString(n, field)
				if err == nil && *target == "" {
					err = errorAt(n, "%s is empty", field)
				}
				return err
			}
		}
		if err := readFields(n, string(name), readers); err != nil {
			return nil, err
		}
	}
	switch in.As {
	case "", schema.InjectAsEnv:
		in.As = schema.InjectAsEnv
		if in.Path+in.Mode+in.Template != "" {
			return nil, errorAt(key, "%s: path, mode and template go with as: file", name)
		}
		if in.Env == "" {
			in.Env = string(name)
		}
		if !envNamePattern.MatchString(in.Env) {
			return nil, errorAt(key, "%s: %s cannot name a variable: give one with env:", name, quote(in.Env))
		}
	case schema.InjectAsFile:
		if in.Env != "" {
			return nil, errorAt(key, "%s: env goes with as: env", name)
		}
		if err := checkPath(key, name, in.Path); err != nil {
			return nil, err
		}
		if in.Mode == "" {
			in.Mode = "0600"
		}
		if !fileModePattern.MatchString(in.Mode) {
			return nil, errorAt(key, `%s: mode must be octal in quotes, like "0600"`, name)
		}
	default:
		return nil, errorAt(key, "%s: as must be env or file", name)
	}
	return in, nil
}

func checkPath(key *yaml.Node, name schema.SecretName, p string) error {
	rest, underHome := strings.CutPrefix(p, "~/")
	switch {
	case p == "":
		return errorAt(key, "%s: as: file needs a path", name)
	case !underHome && !path.IsAbs(p):
		return errorAt(key, "%s: path must be absolute or begin with ~/", name)
	case strings.ContainsRune(p, 0):
		return errorAt(key, "%s: path has a NUL", name)
	case underHome && (rest == "" || path.Clean("/"+rest) != "/"+rest), !underHome && path.Clean(p) != p, p == "/":
		return errorAt(key, "%s: path must name a file, without .., . or double slashes", name)
	}
	return nil
}
