package credential

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// maxQuerySize is the maximum size of git's query in bytes.
const maxQuerySize = 64 << 10

// defaultGitUsername is the username for a token without a username. GitHub and GitLab
// accept any username with a token.
const defaultGitUsername = "x-access-token"

// ErrOtherUsername means that git asks for a username that is not the username of the login.
// Its text is the beginning of an error. The error does not contain the username in the query,
// because some users put a token in its place.
var ErrOtherUsername = errors.New("refusing to answer git: the username in the URL or in git's setting credential.username is not")

// A GitQuery contains the attributes of git's request to a credential helper that are
// necessary to find a login (git documentation, git-credential, "INPUT/OUTPUT FORMAT").
type GitQuery struct{ scheme, host, username string }

// ReadGitQuery reads one name=value attribute per line, up to an empty line or the end of
// the input. It does not remove a carriage return at the end of a value, because the host
// would then differ from the host that git uses (CVE-2024-52006).
func ReadGitQuery(in io.Reader) (GitQuery, error) {
	var q GitQuery
	text, err := io.ReadAll(io.LimitReader(in, maxQuerySize+1))
	if err != nil {
		return q, err
	}
	if len(text) > maxQuerySize { // a truncated query could contain the name of another host
		return q, fmt.Errorf("cannot read git's query: the query is longer than %d bytes", maxQuerySize)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return q, fmt.Errorf("cannot read git's query: each line must have the form name=value")
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
	return q, nil
}

// FindLogin finds the login for the scheme and the host in the query.
func (q GitQuery) FindLogin(logins []schema.Login) (login schema.Login, found bool) {
	return findLogin(logins, q.scheme, trimDefaultPort(q.scheme, q.host))
}

// MayMatch reports whether a key credential.PATTERN.helper in git's configuration can apply
// to the query (gitcredentials(7)). A pattern can omit parts of the URL and can contain
// wildcards in the host. MayMatch does not compare the user and the path, and assumes that
// every wildcard matches. So it can return true for a pattern that does not apply.
func (q GitQuery) MayMatch(pattern string) bool {
	scheme, rest, found := strings.Cut(pattern, "://")
	if !found {
		scheme, rest = "", pattern
	}
	host, _, _ := strings.Cut(rest, "/")
	host = host[strings.LastIndexByte(host, '@')+1:]
	return (scheme == "" || strings.EqualFold(scheme, q.scheme)) &&
		(host == "" || strings.Contains(host, "*") || strings.EqualFold(trimDefaultPort(q.scheme, host), trimDefaultPort(q.scheme, q.host)))
}

// FormatAnswer formats the answer to git. If neither the manifest nor the secret contains a
// username, the answer contains the username in the query, or x-access-token if the query
// contains no username. If the username in the query is not the username of the login,
// FormatAnswer returns ErrOtherUsername.
func (q GitQuery) FormatAnswer(login schema.Login, value schema.SecretValue) (answer []byte, err error) {
	auth, err := newBasicAuth(login, value, cmp.Or(q.username, defaultGitUsername))
	switch {
	case err != nil:
		return nil, err
	case q.username == "" || q.username == auth.username:
	case auth.username == login.Username:
		return nil, fmt.Errorf("%w the username %s, which the manifest declares for %s", ErrOtherUsername, login.Username, login.Host)
	default: // the username is a part of the secret, so it must not be in an error
		return nil, fmt.Errorf("%w the username in the secret %s", ErrOtherUsername, login.Secret)
	}
	return fmt.Appendf(nil, "username=%s\npassword=%s\n", auth.username, auth.password), nil
}
