// Package credential formats secrets for the credential helper protocols of git,
// docker, aws and kubectl, and finds the login for a host that a program asks about.
//
// It does no input or output of its own except that it reads git's query. It trusts
// neither the query nor the secret: a value that could change the meaning of an
// answer is refused, and no error contains a value.
package credential

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/keyhatch/keyhatch/schema"
)

// ErrCredential says that a secret is not what a helper needs.
var ErrCredential = errors.New("the secret cannot be used as a credential")

// A credential is a login with its secret fetched.
type credential struct {
	username, password string
}

// credentialOf makes a credential of what a login's secret holds: a bundle with
// username and password, or the password alone.
func credentialOf(login schema.Login, value schema.SecretValue, username string) (credential, error) {
	if login.Username != "" {
		username = login.Username
	}
	c := credential{username: username}
	if value.Bundle {
		fields, err := bundle(login.Secret, value)
		if err != nil {
			return c, err
		}
		if fields["username"] != "" {
			c.username = fields["username"]
		}
		c.password = fields["password"]
	} else {
		text, err := devcontainer.Bytes(value)
		if err != nil {
			return c, err
		}
		c.password = string(text)
	}
	switch {
	case c.username == "":
		return c, fmt.Errorf("%s: %w: there is no username: give one in helpers, or as a field of the bundle", login.Secret, ErrCredential)
	case c.password == "":
		return c, fmt.Errorf("%s: %w: it is empty, or a bundle without password", login.Secret, ErrCredential)
	// A line end would let a value say another field to git (CVE-2020-5260).
	case strings.ContainsAny(c.username+c.password, "\n\r\x00"):
		return c, fmt.Errorf("%s: %w: it has a line end or a NUL in it", login.Secret, ErrCredential)
	}
	return c, nil
}

// bundle returns a bundle's fields.
func bundle(name schema.SecretName, value schema.SecretValue) (map[string]string, error) {
	if !value.Bundle {
		return nil, fmt.Errorf("%s: %w: it must be a bundle", name, ErrCredential)
	}
	text, err := devcontainer.Bytes(value)
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("%s: %w: its fields cannot be read", name, ErrCredential)
	}
	return fields, nil
}

// loginFor finds the login of a host, which may have a port, spoken to by scheme.
// A bare host in the manifest means https: nothing is sent in the clear unless
// the manifest says so.
func loginFor(logins []schema.Login, scheme, host string) (schema.Login, bool) {
	host = strings.ToLower(host)
	for _, login := range logins {
		if scheme+"://"+host == URL(login) {
			return login, true
		}
	}
	return schema.Login{}, false
}

// URL is where a login is for, with its scheme, and without the scheme's own
// port.
func URL(login schema.Login) string {
	scheme, host, found := strings.Cut(login.Host, "://")
	if !found {
		scheme, host = "https", login.Host
	}
	return scheme + "://" + usualHost(scheme, host)
}

// usualHost is a host without the port that goes without saying.
func usualHost(scheme, host string) string {
	return strings.TrimSuffix(host, map[string]string{"https": ":443", "http": ":80"}[scheme])
}
