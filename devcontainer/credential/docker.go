package credential

import (
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/keyhatch/keyhatch/schema"
)

// DockerNotFoundMessage is what docker looks for, word by word, to go on without a
// login (docker-credential-helpers, credentials.NewErrCredentialsNotFound).
const DockerNotFoundMessage = "credentials not found in native keychain"

// FindDockerLogin finds the login of a registry, as docker names it: a host, or for
// Docker Hub the URL https://index.docker.io/v1/, which a manifest may call
// docker.io.
func FindDockerLogin(logins []schema.Login, registry string) (login schema.Login, found bool) {
	scheme, host, hasScheme := strings.Cut(registry, "://")
	if !hasScheme {
		scheme, host = "https", registry
	}
	host, _, _ = strings.Cut(host, "/")
	if host == "index.docker.io" {
		if login, ok := findLogin(logins, scheme, "docker.io"); ok {
			return login, true
		}
	}
	return findLogin(logins, scheme, trimDefaultPort(scheme, host))
}

// FormatDocker returns what docker is told of a registry.
func FormatDocker(registry string, login schema.Login, value schema.SecretValue) (answer []byte, err error) {
	auth, err := newBasicAuth(login, value, "")
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct{ ServerURL, Username, Secret string }{registry, auth.username, auth.password})
}

// FormatDockerList returns the registries that there are logins for, with the user
// names that are known without a secret.
func FormatDockerList(logins []schema.Login) (answer []byte, err error) {
	usernames := map[string]string{}
	for _, login := range logins {
		usernames[login.Host] = login.Username
	}
	return json.Marshal(usernames, json.Deterministic(true))
}
