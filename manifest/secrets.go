package manifest

import (
	"path"
	"regexp"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
	"gopkg.in/yaml.v3"
)

var (
	variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	fileMode = regexp.MustCompile(`^0?[0-7]{3}$`)
)

// readSecrets reads the allowlist, and how each secret is injected.
func readSecrets(n *yaml.Node) (map[schema.SecretName]*schema.Injection, error) {
	if n.Kind != yaml.MappingNode {
		return nil, wrong(n, "secrets must be a mapping of names: write secrets: {} to allow none")
	}
	secrets := map[schema.SecretName]*schema.Injection{}
	variables, paths := map[string]bool{}, map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || !schema.ValidSecretName(key.Value) {
			return nil, wrong(key, "the secret's name %s does not match %s", quoted(key.Value), schema.SecretNamePattern)
		}
		name := schema.SecretName(key.Value)
		if _, twice := secrets[name]; twice {
			return nil, wrong(key, "%s stands twice in secrets", name)
		}
		injection, err := readInjection(key, n.Content[i+1], name)
		if err != nil {
			return nil, err
		}
		secrets[name] = injection
		if injection.As == schema.AsFile {
			if paths[injection.Path] {
				return nil, wrong(key, "two secrets have the path %s", quoted(injection.Path))
			}
			paths[injection.Path] = true
			continue
		}
		if variables[injection.Env] {
			return nil, wrong(key, "two secrets have the variable %s", injection.Env)
		}
		variables[injection.Env] = true
	}
	return secrets, nil
}

// readInjection reads one secret's value and fills in the defaults.
func readInjection(key, n *yaml.Node, name schema.SecretName) (*schema.Injection, error) {
	in := &schema.Injection{}
	if n.Tag != "!!null" {
		as := (*string)(&in.As)
		targets := map[string]*string{"as": as, "env": &in.Env, "path": &in.Path, "mode": &in.Mode, "template": &in.Template}
		known := map[string]func(*yaml.Node) error{}
		for field, target := range targets {
			known[field] = func(n *yaml.Node) (err error) {
				*target, err = stringOf(n, field)
				if err == nil && *target == "" {
					err = wrong(n, "%s is empty", field)
				}
				return err
			}
		}
		if err := fields(n, string(name), known); err != nil {
			return nil, err
		}
	}
	switch in.As {
	case "", schema.AsEnv:
		in.As = schema.AsEnv
		if in.Path+in.Mode+in.Template != "" {
			return nil, wrong(key, "%s: path, mode and template go with as: file", name)
		}
		if in.Env == "" {
			in.Env = string(name)
		}
		if !variable.MatchString(in.Env) {
			return nil, wrong(key, "%s: %s cannot name a variable: give one with env:", name, quoted(in.Env))
		}
	case schema.AsFile:
		if in.Env != "" {
			return nil, wrong(key, "%s: env goes with as: env", name)
		}
		if err := checkPath(key, name, in.Path); err != nil {
			return nil, err
		}
		if in.Mode == "" {
			in.Mode = "0600"
		}
		if !fileMode.MatchString(in.Mode) {
			return nil, wrong(key, `%s: mode must be octal in quotes, like "0600"`, name)
		}
	default:
		return nil, wrong(key, "%s: as must be env or file", name)
	}
	return in, nil
}

func checkPath(key *yaml.Node, name schema.SecretName, p string) error {
	rest, home := strings.CutPrefix(p, "~/")
	switch {
	case p == "":
		return wrong(key, "%s: as: file needs a path", name)
	case !home && !path.IsAbs(p):
		return wrong(key, "%s: path must be absolute or begin with ~/", name)
	case strings.ContainsRune(p, 0):
		return wrong(key, "%s: path has a NUL", name)
	case home && (rest == "" || path.Clean("/"+rest) != "/"+rest), !home && path.Clean(p) != p, p == "/":
		return wrong(key, "%s: path must name a file, without .., . or double slashes", name)
	}
	return nil
}
