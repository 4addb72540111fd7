package manifest

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// An ordinaryFile is a file in which a tool looks for credentials. Such a file is not
// dangerous if it contains only credentials. Most of these tools also read other settings
// from the same file, for example the name of a program that they run. Untrusted code
// writes the template, so the template is dangerous if it contains anything that is not
// known to be harmless.
type ordinaryFile struct {
	patterns []string // as in a fileRule
	// extra is the danger if a template contains more than credentials.
	extra string
	// isHarmless checks the template after its placeholders were removed. If isHarmless is
	// nil, the tool reads only credentials from the file.
	isHarmless func(template string) bool
}

func (f ordinaryFile) matches(elements []string) bool {
	return slices.ContainsFunc(f.patterns, func(pattern string) bool { return matchesPath(pattern, elements) })
}

var placeholder = regexp.MustCompile(`(?s)\{\{.*?\}\}`)

// templateDanger returns why the template of the file is dangerous, or "". It removes the
// placeholders, because a field can be empty, and a placeholder can then divide a word that
// the tool reads as one word. Without a template, the file contains only the secret.
func (f ordinaryFile) templateDanger(template string) string {
	if template == "" || f.isHarmless == nil || f.isHarmless(placeholder.ReplaceAllString(template, "")) {
		return ""
	}
	return f.extra
}

const (
	extraSettings  = "the template contains more than credentials: the tool may run commands or trust other servers because of it"
	extraVariables = "the template sets a variable that runs commands or loads code, or it is more than a list of variables"
)

// ordinaryFiles are the files that contain credentials.
var ordinaryFiles = []ordinaryFile{
	{[]string{".npmrc"}, extraSettings, hasOnlyKeys("=", isNPMKey)},
	{[]string{".aws/config", ".aws/credentials"}, extraSettings, hasOnlyKeys("=:", oneOf(
		"aws_access_key_id", "aws_account_id", "aws_secret_access_key", "aws_session_token", "duration_seconds", "expiration",
		"external_id", "mfa_serial", "output", "region", "role_arn", "role_session_name", "source_profile"))},
	{[]string{".pypirc"}, extraSettings, hasOnlyKeys("=:", oneOf("index-servers", "pypi", "testpypi", "username", "password"))},
	{[]string{".my.cnf"}, extraSettings, hasOnlyKeys("=", oneOf("user", "password", "database", "port"))},
	{[]string{".cargo/credentials", ".cargo/credentials.toml"}, extraSettings, hasOnlyKeys("=", oneOf("token", "secret-key", "secret-key-subject"))},
	{[]string{".gradle/gradle.properties"}, extraSettings, hasOnlyKeys("=:", isGradleCredential)},
	{[]string{".netrc", "_netrc"}, extraSettings, hasOnlyNetrcWords},
	{[]string{".docker/config.json"}, extraSettings, hasOnlyYAMLKeys(func(key string) bool {
		return isHost(key) || oneOf("auths", "auth", "username", "password", "email", "identitytoken", "registrytoken")(key)
	})},
	{[]string{".kube/config"}, extraSettings, hasOnlyYAMLKeys(oneOf(
		"apiversion", "kind", "preferences", "current-context", "clusters", "cluster", "name", "server", "tls-server-name",
		"certificate-authority-data", "contexts", "context", "namespace", "users", "user", "token", "username", "password",
		"client-certificate-data", "client-key-data"))},
	{[]string{".config/gh/hosts.yml", ".config/gh/hosts.yaml"}, extraSettings, hasOnlyYAMLKeys(func(key string) bool {
		return !oneOf("", "aliases", "browser", "editor", "http_unix_socket", "pager")(key)
	})},
	{[]string{".yarnrc.yml"}, extraSettings, hasOnlyYAMLKeys(func(key string) bool {
		return isHost(key) || oneOf("npmalwaysauth", "npmauthident", "npmauthtoken", "npmregistries", "npmregistryserver", "npmscopes")(key)
	})},
	{[]string{".m2/settings.xml"}, extraSettings, hasOnlyElements("settings", "servers", "server", "id", "username", "password", "privatekey", "passphrase")},
	{[]string{".env", ".env.*", "*.env"}, extraVariables, hasOnlyVariables},

	{patterns: []string{
		".cargo/credentials.d/*", ".claude/.credentials.json", ".codex/auth.json", ".composer/auth.json", ".config/*/auth.json", ".config/*/auth.toml",
		".config/*/credentials", ".config/*/credentials.json", ".config/*/credentials.toml", ".config/*/credentials.yaml",
		".config/*/credentials.yml", ".config/*/token", ".config/*/token.json", ".config/gcloud/application_default_credentials.json",
		".config/sops/age/keys.txt", ".gem/credentials", ".gemini/oauth_creds.json", ".m2/settings-security.xml",
		".sbt/.credentials", ".terraform.d/credentials.tfrc.json", ".vault-token",
	}},
}

func oneOf(words ...string) func(string) bool {
	return func(word string) bool { return slices.Contains(words, word) }
}

// isHost reports whether a key in a file is the name of a host, an address, or a scope of
// npm. The names of settings contain none of these characters.
func isHost(key string) bool { return strings.ContainsAny(key, "./:@") || key == "localhost" }

// isNPMKey accepts the keys of npm's credentials, for example
// "//registry.npmjs.org/:_authToken", and the keys of registries. pnpm runs the program in
// the key "//HOST/:tokenHelper", and does not ask for an approval.
func isNPMKey(key string) bool {
	if scope, ok := strings.CutSuffix(key, ":registry"); ok && strings.HasPrefix(scope, "@") {
		return true
	}
	if strings.HasPrefix(key, "//") {
		key = key[strings.LastIndexByte(key, ':')+1:]
	} else if key == "registry" {
		return true
	}
	return oneOf("_auth", "_authtoken", "_password", "username", "email", "always-auth", "certfile", "keyfile")(key)
}

// isGradleCredential accepts the properties that gradle only gives to a build. It obeys
// other properties itself, for example org.gradle.java.home.
func isGradleCredential(key string) bool {
	for _, suffix := range []string{"key", "keyid", "password", "token", "user", "username"} {
		if strings.HasSuffix(key, suffix) && !strings.HasPrefix(key, "org.gradle") && !strings.HasPrefix(key, "systemprop") && !strings.Contains(key, `\`) {
			return true
		}
	}
	return false
}

// hasOnlyKeys returns a check of a file with lines KEY=VALUE, comments, and sections. The
// first of the separators ends the key. The check ignores the case of a key.
func hasOnlyKeys(separators string, isHarmless func(key string) bool) func(string) bool {
	return func(template string) bool {
		for _, line := range splitLines(template) {
			if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") || strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
				continue
			}
			if i := strings.IndexAny(line, separators); i >= 0 {
				line = line[:i]
			}
			if !isHarmless(strings.ToLower(strings.TrimSpace(line))) {
				return false
			}
		}
		return true
	}
}

// splitLines splits a text at every character that a program could use as the end of a
// line, and removes spaces around the lines.
func splitLines(text string) []string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029", r) })
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return lines
}

// hasOnlyNetrcWords reports whether a .netrc contains only logins. It can also contain
// macros, which ftp executes.
func hasOnlyNetrcWords(template string) bool {
	words := strings.Fields(template)
	for i := 0; i < len(words); i++ {
		switch words[i] {
		case "default":
		case "machine", "login", "password", "account":
			// The value is the next word, except that its placeholder was removed.
			if i+1 < len(words) && !oneOf("machine", "default", "login", "password", "account", "macdef")(words[i+1]) {
				i++
			}
		default:
			return false
		}
	}
	return true
}

// hasOnlyYAMLKeys returns a check of the keys of a YAML or JSON file. JSON is a subset of
// YAML. The check ignores the case of a key, as JSON decoders for Go do.
func hasOnlyYAMLKeys(isHarmless func(key string) bool) func(string) bool {
	return func(template string) bool {
		decoder := yaml.NewDecoder(bytes.NewReader([]byte(template)))
		for {
			var doc yaml.Node
			switch err := decoder.Decode(&doc); {
			case errors.Is(err, io.EOF):
				return true
			case err != nil || !keysAre(&doc, isHarmless):
				return false // the tool may parse a file that this decoder refuses
			}
		}
	}
}

// keysAre checks the keys of all mappings in a document. It does not follow aliases,
// because the document also contains the nodes to which they refer. An alias as a key is
// refused, because such a node can be a value that is not checked.
func keysAre(n *yaml.Node, isHarmless func(key string) bool) bool {
	for i, child := range n.Content {
		isKey := n.Kind == yaml.MappingNode && i%2 == 0
		if isKey && (child.Kind != yaml.ScalarNode || !isHarmless(strings.ToLower(child.Value))) || !keysAre(child, isHarmless) {
			return false
		}
	}
	return true
}

// hasOnlyElements returns a check of an XML file. It refuses everything that could define
// another name of an element.
func hasOnlyElements(names ...string) func(string) bool {
	element := regexp.MustCompile(`^</?(` + strings.Join(names, "|") + `)\s*/?>`)
	root := regexp.MustCompile(`^<(settings(\s+xmlns[:a-z]*="[^"<>&]*"|\s+xsi:schemaLocation="[^"<>&]*")*\s*|\?xml [a-zA-Z0-9="'. -]*\?)>`)
	return func(template string) bool {
		for rest := template; ; {
			i := strings.IndexByte(rest, '<')
			if i < 0 {
				return true
			}
			tag := element.FindString(strings.ToLower(rest[i:]))
			if tag == "" {
				tag = root.FindString(rest[i:])
			}
			if tag == "" {
				return false
			}
			rest = rest[i+len(tag):]
		}
	}
}

// A variable in a file of variables. A shell can also read such a file, so the value must
// not contain anything that a shell executes.
var variableLine = regexp.MustCompile("^(?:export\\s+)?([A-Za-z_][A-Za-z0-9_.]*)=(?:[^\\s'\"`$\\\\;&|<>()#]*|'[^']*'|\"[^\"`$\\\\]*\")$")

// hasOnlyVariables reports whether a file such as .env sets only ordinary variables.
func hasOnlyVariables(template string) bool {
	for _, line := range splitLines(template) {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		match := variableLine.FindStringSubmatch(line)
		if match == nil || variableDanger(match[1]) != "" {
			return false
		}
	}
	return true
}
