// Package credential formats secrets for the credential helper protocols of git, docker,
// aws, and kubectl. For git and docker, it also finds the login for the host in the query.
//
// The package does not trust the queries and the secrets. It refuses a value that could
// change the meaning of an answer. Its errors contain no value of a secret.
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

// ErrUnusable means that a secret does not have the form that a credential helper needs.
var ErrUnusable = errors.New("cannot use the secret as a credential")

// basicAuth is the username and password of a login.
type basicAuth struct {
	username, password string
}

// newBasicAuth takes the username and password from a login's secret. The secret is either
// a bundle with the fields username and password, or only the password. If the secret
// contains no username, newBasicAuth uses the username of the login. If the login has no
// username, newBasicAuth uses defaultUsername.
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
		return auth, fmt.Errorf("%w: %s does not have a username: set username under helpers in the manifest, or replace the secret by a bundle with the fields username and password", ErrUnusable, login.Secret)
	case auth.password == "":
		return auth, fmt.Errorf("%w: %s is empty, or is a bundle without a value in the field password", ErrUnusable, login.Secret)
	// A value with a newline could add another field to the answer (CVE-2020-5260).
	case strings.ContainsAny(auth.username+auth.password, "\n\r\x00"):
		return auth, fmt.Errorf("%w: the username or the password of %s contains a newline, a carriage return, or a NUL byte", ErrUnusable, login.Secret)
	}
	return auth, nil
}

// bundleFields decodes a bundle. It refuses a secret that is not a bundle.
func bundleFields(name schema.SecretName, value schema.SecretValue) (map[string]string, error) {
	if !value.Bundle {
		return nil, fmt.Errorf("%w: %s is not a bundle", ErrUnusable, name)
	}
	text, err := devcontainer.ValueBytes(value)
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("%w: the bundle %s is not a JSON object of strings", ErrUnusable, name)
	}
	return fields, nil
}

// findLogin finds the login for a scheme and a host. The host may include a port. If the
// manifest declares a host without a scheme, the scheme is https. Therefore a secret is used
// on an unencrypted connection only if the manifest declares the host with http://.
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
