package manifest

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
	"gopkg.in/yaml.v3"
)

var (
	loginHostPattern     = regexp.MustCompile(schema.LoginHostPattern)
	loginUsernamePattern = regexp.MustCompile(schema.LoginUsernamePattern)
)

// maxLoginHost is the maximum length of the host of a login in bytes, including http:// and
// the port. No name of a host is longer (RFC 1035). Without a limit, a long host could push
// other text off the operator's screen.
const maxLoginHost = 253

// readHelpers parses the section helpers of a manifest. It refuses a section that names a
// secret which is not in secrets.
func readHelpers(n *yaml.Node, secrets map[schema.SecretName]*schema.Injection) (*schema.Helpers, error) {
	h := &schema.Helpers{}
	if err := readFields(n, "helpers", map[string]func(*yaml.Node) error{
		"git":     func(n *yaml.Node) (err error) { h.Git, err = readLogins(n, "git", secrets); return err },
		"docker":  func(n *yaml.Node) (err error) { h.Docker, err = readLogins(n, "docker", secrets); return err },
		"aws":     func(n *yaml.Node) (err error) { h.AWS, err = readSecretRef(n, "aws", secrets); return err },
		"kubectl": func(n *yaml.Node) (err error) { h.Kubectl, err = readSecretRef(n, "kubectl", secrets); return err },
	}); err != nil {
		return nil, err
	}
	return h, nil
}

func readLogins(n *yaml.Node, helper constant, secrets map[schema.SecretName]*schema.Injection) ([]schema.Login, error) {
	var logins []schema.Login
	err := readList(n, helper, func(item *yaml.Node) error {
		var l schema.Login
		if err := readFields(item, helper, map[string]func(*yaml.Node) error{
			"host":     func(n *yaml.Node) (err error) { l.Host, err = readString(n, "host"); return err },
			"username": func(n *yaml.Node) (err error) { l.Username, err = readString(n, "username"); return err },
			"secret":   func(n *yaml.Node) (err error) { l.Secret, err = readSecretRef(n, "secret", secrets); return err },
		}); err != nil {
			return err
		}
		switch {
		case !loginHostPattern.MatchString(l.Host) || len(l.Host) > maxLoginHost:
			return errorAt(item, "%s: host must be HOST or HOST:PORT in lower case, with http:// in front if the server does not use TLS", helper)
		case l.Secret == "":
			return errorAt(item, "%s: secret is missing: write the name of the secret for %s", helper, l.Host)
		case l.Username != "" && !loginUsernamePattern.MatchString(l.Username):
			return errorAt(item, "%s: username must be at most 128 visible ASCII characters", helper)
		case slices.ContainsFunc(logins, func(other schema.Login) bool { return loginURL(other.Host) == loginURL(l.Host) }):
			return errorAt(item, "%s: duplicate host %s", helper, l.Host)
		}
		logins = append(logins, l)
		return nil
	})
	return logins, err
}

// loginURL returns the URL of the server that host means. Different spellings of the same
// server have the same URL, for example a and a:443. readLogins refuses two logins of one
// helper for the same server. Otherwise, the spelling that the tool uses would decide which
// secret the tool gets.
func loginURL(host string) string {
	scheme, rest, found := strings.Cut(host, "://")
	if !found {
		scheme, rest = "https", host
	}
	port := ""
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, ']') {
		rest, port = rest[:i], ":"+strings.TrimLeft(rest[i+1:], "0")
	}
	if addr, err := netip.ParseAddr(strings.Trim(rest, "[]")); err == nil {
		rest = addr.String()
	}
	if port == map[string]string{"https": ":443", "http": ":80"}[scheme] {
		port = ""
	}
	return scheme + "://" + strings.TrimSuffix(rest, ".") + port
}

// readSecretRef reads the name of a secret. It returns an error if the secret is not in
// secrets.
func readSecretRef(n *yaml.Node, subject constant, secrets map[schema.SecretName]*schema.Injection) (schema.SecretName, error) {
	name, err := readString(n, subject)
	if err != nil {
		return "", err
	}
	if _, ok := secrets[schema.SecretName(name)]; !ok {
		return "", errorAt(n, "%s: %s is not under secrets in this manifest", subject, quote(name))
	}
	return schema.SecretName(name), nil
}
