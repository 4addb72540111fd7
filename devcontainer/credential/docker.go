package credential

import (
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/keyhatch/keyhatch/schema"
)

// DockerNotFound is what docker looks for, word by word, to go on without a
// login (docker-credential-helpers, credentials.NewErrCredentialsNotFound).
const DockerNotFound = "credentials not found in native keychain"

// DockerLogin finds the login of a registry, as docker names it: a host, or for
// Docker Hub the URL https://index.docker.io/v1/, which a manifest may call
// docker.io.
func DockerLogin(logins []schema.Login, registry string) (schema.Login, bool) {
	scheme, host, found := strings.Cut(registry, "://")
	if !found {
		scheme, host = "https", registry
	}
	host, _, _ = strings.Cut(host, "/")
	if host == "index.docker.io" {
		if login, ok := loginFor(logins, scheme, "docker.io"); ok {
			return login, true
		}
	}
	return loginFor(logins, scheme, usualHost(scheme, host))
}

// DockerAnswer returns what docker is told of a registry.
func DockerAnswer(registry string, login schema.Login, value schema.SecretValue) ([]byte, error) {
	c, err := credentialOf(login, value, "")
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct{ ServerURL, Username, Secret string }{registry, c.username, c.password})
}

// DockerList returns the registries that there are logins for, with the user
// names that are known without a secret.
func DockerList(logins []schema.Login) ([]byte, error) {
	list := map[string]string{}
	for _, login := range logins {
		list[login.Host] = login.Username
	}
	return json.Marshal(list, json.Deterministic(true))
}
