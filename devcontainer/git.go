package devcontainer

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// maxAttributes bounds what git says of a credential, in bytes.
const maxAttributes = 64 << 10

// GitUsername is told with a token that has no user of its own; GitHub and
// GitLab take any.
const GitUsername = "x-access-token"

// A GitQuery is what git asks a credential helper for, as attributes (git
// documentation, git-credential, "INPUT/OUTPUT FORMAT").
type GitQuery struct{ scheme, host, username string }

// ReadGitQuery reads attributes, one a line, up to an empty line or the end.
func ReadGitQuery(in io.Reader) (GitQuery, error) {
	var q GitQuery
	lines := bufio.NewScanner(io.LimitReader(in, maxAttributes))
	for lines.Scan() && lines.Text() != "" {
		name, value, ok := strings.Cut(lines.Text(), "=")
		if !ok {
			return q, fmt.Errorf("reading what git asks for: a line is not name=value")
		}
		switch name {
		case "protocol":
			q.scheme = value
		case "host":
			q.host = value
		case "username":
			q.username = value
		}
	}
	return q, lines.Err()
}

// Login finds the login that answers. None answers for a host that the manifest
// does not have, or for another user at it.
func (q GitQuery) Login(logins []schema.Login) (schema.Login, bool) {
	host := q.host
	if q.scheme == "https" {
		host = strings.TrimSuffix(host, ":443")
	}
	return loginFor(logins, q.scheme, host)
}

// Answer returns what git is told; nothing where it asks for another user.
func (q GitQuery) Answer(login schema.Login, value schema.SecretValue) ([]byte, error) {
	c, err := credentialOf(login, value, GitUsername)
	if err != nil {
		return nil, err
	}
	if q.username != "" && q.username != c.username {
		return nil, nil
	}
	return fmt.Appendf(nil, "username=%s\npassword=%s\n", c.username, c.password), nil
}
