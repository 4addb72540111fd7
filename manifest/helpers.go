package manifest

import (
	"regexp"
	"slices"

	"github.com/keyhatch/keyhatch/schema"
	"gopkg.in/yaml.v3"
)

var (
	loginHost     = regexp.MustCompile(schema.LoginHostPattern)
	loginUsername = regexp.MustCompile(schema.LoginUsernamePattern)
)

// readHelpers reads which secrets answer credential helpers. All of them must be
// in secrets, the allowlist.
func readHelpers(n *yaml.Node, secrets map[schema.SecretName]*schema.Injection) (*schema.Helpers, error) {
	h := &schema.Helpers{}
	if err := fields(n, "helpers", map[string]func(*yaml.Node) error{
		"git":     func(n *yaml.Node) (err error) { h.Git, err = logins(n, "git", secrets); return err },
		"docker":  func(n *yaml.Node) (err error) { h.Docker, err = logins(n, "docker", secrets); return err },
		"aws":     func(n *yaml.Node) (err error) { h.AWS, err = allowed(n, "aws", secrets); return err },
		"kubectl": func(n *yaml.Node) (err error) { h.Kubectl, err = allowed(n, "kubectl", secrets); return err },
	}); err != nil {
		return nil, err
	}
	return h, nil
}

func logins(n *yaml.Node, helper string, secrets map[schema.SecretName]*schema.Injection) ([]schema.Login, error) {
	var logins []schema.Login
	err := each(n, helper, func(one *yaml.Node) error {
		var l schema.Login
		if err := fields(one, helper, map[string]func(*yaml.Node) error{
			"host":     func(n *yaml.Node) (err error) { l.Host, err = stringOf(n, "host"); return err },
			"username": func(n *yaml.Node) (err error) { l.Username, err = stringOf(n, "username"); return err },
			"secret":   func(n *yaml.Node) (err error) { l.Secret, err = allowed(n, "secret", secrets); return err },
		}); err != nil {
			return err
		}
		switch {
		case !loginHost.MatchString(l.Host):
			return wrong(one, "%s: host must be a name in lower case, with a port if need be, or http:// and that for one without TLS", helper)
		case l.Secret == "":
			return wrong(one, "%s: secret is missing: it names the secret that logs in at %s", helper, l.Host)
		case l.Username != "" && !loginUsername.MatchString(l.Username):
			return wrong(one, "%s: username must be at most 128 visible ASCII characters", helper)
		case slices.ContainsFunc(logins, func(other schema.Login) bool { return other.Host == l.Host }):
			return wrong(one, "%s: %s stands twice", helper, l.Host)
		}
		logins = append(logins, l)
		return nil
	})
	return logins, err
}

// allowed reads the name of a secret that is in secrets, the allowlist.
func allowed(n *yaml.Node, what string, secrets map[schema.SecretName]*schema.Injection) (schema.SecretName, error) {
	name, err := stringOf(n, what)
	if err != nil {
		return "", err
	}
	if _, ok := secrets[schema.SecretName(name)]; !ok {
		return "", wrong(n, "%s: %s is not in secrets of this manifest", what, quoted(name))
	}
	return schema.SecretName(name), nil
}
