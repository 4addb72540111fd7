// Package credential formats secrets for the credential helper protocols of git,
// docker, aws and kubectl, and finds the login for a host that a program asks about.
//
// It does no input or output of its own except that it reads git's query. It trusts
// neither the query nor the secret: a value that could change the meaning of an
// answer is refused, and no error contains a value.
package credential

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/keyhatch/keyhatch/schema"
)

// ErrUnusable says that a secret is not what a helper needs.
var ErrUnusable = errors.New("the secret cannot be used as a credential")

// basicAuth is the username and password of a login.
type basicAuth struct {
	username, password string
}

// newBasicAuth takes the username and password from a login's secret, which is a
// bundle with both or the password alone. Without a username there, it uses the
// login's, or else defaultUsername.
func newBasicAuth(login schema.Login, value schema.SecretValue, defaultUsername string) (basicAuth, error) {
	auth := basicAuth{username: cmp.Or(login.Username, defaultUsername)}
	if value.Bundle {
		fields, err := bundleFields(login.Secret, value)
		if err != nil {
			return auth, err
		}
		if fields["username"] != "" {
			auth.username = fields["username"]
		}
		auth.password = fields["password"]
	} else {
		text, err := devcontainer.ValueBytes(value)
		if err != nil {
			return auth, err
		}
		auth.password = string(text)
	}
	switch {
	case auth.username == "":
		return auth, fmt.Errorf("%s: %w: there is no username: give one in helpers, or as a field of the bundle", login.Secret, ErrUnusable)
	case auth.password == "":
		return auth, fmt.Errorf("%s: %w: it is empty, or a bundle without password", login.Secret, ErrUnusable)
	// A line end would let a value say another field to git (CVE-2020-5260).
	case strings.ContainsAny(auth.username+auth.password, "\n\r\x00"):
		return auth, fmt.Errorf("%s: %w: it has a line end or a NUL in it", login.Secret, ErrUnusable)
	}
	return auth, nil
}

// bundleFields decodes a bundle. It refuses a secret that is not a bundle.
func bundleFields(name schema.SecretName, value schema.SecretValue) (map[string]string, error) {
	if !value.Bundle {
		return nil, fmt.Errorf("%s: %w: it must be a bundle", name, ErrUnusable)
	}
	text, err := devcontainer.ValueBytes(value)
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("%s: %w: its fields cannot be read", name, ErrUnusable)
	}
	return fields, nil
}

// findLogin finds the login of a host, which may have a port, spoken to by scheme.
// A bare host in the manifest means https: nothing is sent in the clear unless
// the manifest says so.
func findLogin(logins []schema.Login, scheme, host string) (schema.Login, bool) {
	host = strings.ToLower(host)
	for _, login := range logins {
		if scheme+"://"+host == LoginURL(login) {
			return login, true
		}
	}
	return schema.Login{}, false
}

// LoginURL returns the URL of a login's host, without the scheme's default port.
func LoginURL(login schema.Login) string {
	scheme, host, found := strings.Cut(login.Host, "://")
	if !found {
		scheme, host = "https", login.Host
	}
	return scheme + "://" + trimDefaultPort(scheme, host)
}

// trimDefaultPort removes the scheme's default port from host.
func trimDefaultPort(scheme, host string) string {
	return strings.TrimSuffix(host, map[string]string{"https": ":443", "http": ":80"}[scheme])
}
