package credential

import (
	"fmt"
	"io"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// maxQuerySize limits the attributes that git sends, in bytes.
const maxQuerySize = 64 << 10

// defaultGitUsername goes with a token that has no username. GitHub and GitLab accept
// any.
const defaultGitUsername = "x-access-token"

// A GitQuery is what git asks a credential helper for, as attributes (git
// documentation, git-credential, "INPUT/OUTPUT FORMAT").
type GitQuery struct{ scheme, host, username string }

// ReadGitQuery reads attributes, one a line, up to an empty line or the end. A
// carriage return belongs to the value: without it that would be another host
// than git's (CVE-2024-52006).
func ReadGitQuery(in io.Reader) (GitQuery, error) {
	var q GitQuery
	text, err := io.ReadAll(io.LimitReader(in, maxQuerySize+1))
	if err != nil {
		return q, err
	}
	if len(text) > maxQuerySize { // cut off it would be another question
		return q, fmt.Errorf("reading what git asks for: it has over %d bytes", maxQuerySize)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, "=")
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
	return q, nil
}

// FindLogin finds the login for the host that git asks about.
func (q GitQuery) FindLogin(logins []schema.Login) (login schema.Login, found bool) {
	return findLogin(logins, q.scheme, trimDefaultPort(q.scheme, q.host))
}

// MayMatch reports whether the pattern of a credential.PATTERN.helper in git's
// configuration may be for what is asked about (gitcredentials(7)). It says yes
// too often rather than too rarely: a pattern may leave parts out, or have
// wildcards in the host.
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

// FormatAnswer formats the answer to git. It is empty if git asks for another user.
func (q GitQuery) FormatAnswer(login schema.Login, value schema.SecretValue) (answer []byte, err error) {
	auth, err := newBasicAuth(login, value, defaultGitUsername)
	if err != nil {
		return nil, err
	}
	if q.username != "" && q.username != auth.username {
		return nil, nil
	}
	return fmt.Appendf(nil, "username=%s\npassword=%s\n", auth.username, auth.password), nil
}
