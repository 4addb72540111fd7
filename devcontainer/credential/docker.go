package credential

import (
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/keyhatch/keyhatch/schema"
)

// DockerNotFoundMessage is the exact text that a helper must print if it has no login. docker
// then continues without a login (docker-credential-helpers,
// credentials.NewErrCredentialsNotFound).
const DockerNotFoundMessage = "credentials not found in native keychain"

// FindDockerLogin finds the login for a registry. docker sends the host of the registry. For
// Docker Hub, docker sends the URL https://index.docker.io/v1/. A manifest can declare Docker
// Hub as docker.io.
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

// FormatDocker formats a login for a registry as the answer to docker's get operation.
func FormatDocker(registry string, login schema.Login, value schema.SecretValue) (answer []byte, err error) {
	auth, err := newBasicAuth(login, value, "")
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct{ ServerURL, Username, Secret string }{registry, auth.username, auth.password})
}

// FormatDockerList formats the answer to docker's list operation. The answer contains the
// registry and the username of each login in the manifest, and no secret.
func FormatDockerList(logins []schema.Login) (answer []byte, err error) {
	usernames := map[string]string{}
	for _, login := range logins {
		usernames[login.Host] = login.Username
	}
	return json.Marshal(usernames, json.Deterministic(true))
}
