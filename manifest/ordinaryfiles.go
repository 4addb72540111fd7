package manifest

import (
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
	patterns   []string                   // patterns of paths, with the syntax of the patterns in a fileRule
	isHarmless func(template string) bool // not called if plainTemplate matches the template
}

func findOrdinaryFile(elements []string) (found ordinaryFile, ok bool) {
	for _, file := range ordinaryFiles {
		if matchesAny(file.patterns, elements) {
			return file, true
		}
	}
	return ordinaryFile{}, false
}

var placeholder = regexp.MustCompile(`(?s)\{\{.*?\}\}`)

// withoutPlaceholders returns the text of the file if each value is empty. A check of the
// template alone would be wrong: if the value of {{x}} is empty, a tool reads edi{{x}}tor as
// editor.
func withoutPlaceholders(template string) string { return placeholder.ReplaceAllString(template, "") }

// ordinaryFiles contains the known files for credentials.
var ordinaryFiles = []ordinaryFile{
	{[]string{".npmrc"}, isHarmlessNPMFile},
	// A section plugins is refused, because aws loads the modules that the section names. A
	// region must be one word, because aws makes it a part of the names of servers.
	{[]string{".aws/config"}, hasOnlyLines(`\[(default|profile +` + awsProfile + `)\]|` + awsSettings)},
	{[]string{".aws/credentials"}, hasOnlyLines(`\[` + awsProfile + `\]|` + awsSettings)},
	{[]string{".pypirc"}, hasOnlyLines(`\[[\w.-]+\]|pypi|testpypi|(index-servers|username|password)[ \t]*[=:].*`)},
	// A section mysqld is refused, because mysqld runs as the user that the section names.
	{[]string{".my.cnf"}, hasOnlyLines(`\[(client[\w-]*|mysql|mysqldump)\]|(user|password|database|port)[ \t]*=[^\\]*`)},
	{[]string{".cargo/credentials", ".cargo/credentials.toml"}, hasOnlyLines(
		`\[(registry|registries\.([\w-]+|"[\w.-]+"|'[\w.-]+'))\]|(token|secret-key|secret-key-subject)[ \t]*=[ \t]*("[^"\\]*"|'[^']*')?`)},
	{[]string{".gradle/gradle.properties"}, isHarmlessGradleFile},
	{[]string{".netrc", "_netrc"}, hasOnlyLogins},
	{[]string{".docker/config.json", "/run/containers/*/auth.json", "/run/user/*/containers/auth.json", ".config/containers/auth.json"}, hasOnlyYAMLKeys(func(key string) bool {
		return isHost(key) || oneOf("auths", "auth", "username", "password", "email", "identitytoken", "registrytoken")(key)
	})},
	{[]string{"*.kubeconfig", ".kube/config", "kubeconfig"}, isHarmlessKubeFile},
	{[]string{".config/gh/hosts.yml", ".config/gh/hosts.yaml"}, isHarmlessGHFile},
	{[]string{".yarnrc.yml"}, isHarmlessYarnFile},
	{[]string{".composer/auth.json", ".config/composer/auth.json"}, hasOnlyYAMLKeys(func(key string) bool {
		return isHost(key) || oneOf("bearer", "bitbucket-oauth", "consumer-key", "consumer-secret", "github-oauth", "gitlab-oauth", "gitlab-token", "http-basic", "password", "token", "username")(key)
	})},
	{[]string{".terraform.d/credentials.tfrc.json"}, hasOnlyYAMLKeys(func(key string) bool {
		return isHost(key) || oneOf("credentials", "token")(key)
	})},
	// A line that begins with AGE-PLUGIN- is refused, because it makes age run a plugin.
	{[]string{".config/sops/age/keys.txt"}, hasOnlyLines(`age-secret-key-[a-z0-9-]*`)},
	{[]string{".m2/settings.xml"}, hasOnlyElements("settings", "servers", "server", "id", "username", "password", "privatekey", "passphrase")},

	{[]string{".git-credentials", ".config/git/credentials"}, linesMatch(`(https://` + urlWord + `(:` + urlWord + `)?@?[\w.-]*|http://(` + urlWord + `(:` + urlWord + `)?@)?` + loopback + `)(:\d*)?(/[\w./-]*)?`)},
	// The host * is refused, because psql would send the password to every server.
	{[]string{".pgpass"}, linesMatch(`[\w./-]*:([\w.*/-]*:){3}[\w.*/-]*`)},
	{[]string{".sbt/.credentials"}, hasOnlyLines(`(realm|host|user|password)[ \t]*=[^\\]*`)},
	{[]string{".gem/credentials"}, hasOnlyYAMLKeys(func(key string) bool {
		return isHost(key) || key == ":rubygems_api_key"
	})},
	{[]string{".claude/.credentials.json", ".codex/auth.json"}, hasOnlyYAMLKeys(oneOf(
		"access_token", "accesstoken", "account_id", "claudeaioauth", "expiresat", "id_token", "last_refresh", "openai_api_key", "refresh_token",
		"refreshtoken", "scopes", "subscriptiontype", "tokens"))},

	// keyhatch does not know the formats of these files. So a template is dangerous unless it
	// contains only one placeholder and white space.
	{[]string{
		".*/*.jks", ".*/*.key", ".*/*.keystore", ".*/*.p12", ".*/*.p8", ".*/*.pem", ".*/*.pfx",
		".cargo/credentials.d/*", ".config/*/auth.json", ".config/*/auth.toml", ".config/*/credentials",
		".config/*/credentials.json", ".config/*/credentials.toml", ".config/*/credentials.yaml", ".config/*/credentials.yml",
		".config/*/token", ".config/*/token.json", ".m2/settings-security.xml", ".ssh/*.key", ".ssh/*.pem", ".ssh/*_key",
		".ssh/id_*", ".vault-token",
	}, func(string) bool { return false }},

	// The key credential_source is refused, because it can make Google's tools run a program
	// or send a file to a server.
	{[]string{
		"*credentials*.json", "*service-account*.json", "*service_account*.json", ".config/gcloud/application_default_credentials.json", ".gemini/oauth_creds.json", "client_secret*.json",
	}, isHarmlessGoogleFile},
}

// isGoogleKey reports whether a key is known to be harmless in a file with Google's
// credentials. The key must be in lower case.
func isGoogleKey(key string) bool {
	return oneOf(
		"access_token", "account", "auth_provider_x509_cert_url", "auth_uri", "client_email", "client_id", "client_secret", "client_x509_cert_url",
		"expiry_date", "id_token", "installed", "private_key", "private_key_id", "project_id", "quota_project_id", "redirect_uris", "refresh_token",
		"scope", "token_type", "token_uri", "type", "universe_domain", "web")(key)
}

func oneOf(words ...string) func(string) bool {
	return func(word string) bool { return slices.Contains(words, word) }
}

// Regular expressions for parts of lines. A line is converted to lower case before it is
// compared.
const (
	awsProfile  = `["']?[\w.@+/-]+["']?`
	awsSettings = `(aws_access_key_id|aws_account_id|aws_secret_access_key|aws_session_token|duration_seconds|expiration|external_id|mfa_serial|output|` +
		`role_arn|role_session_name|source_profile)[ \t]*[=:].*|region[ \t]*[=:][ \t]*[\w-]*`
	npmCredential = `(_auth|_authtoken|_password|username|email|always-auth|certfile|keyfile)`
	urlWord       = `([\w.~+-]|%[2-9a-f][0-9a-f])*`         // does not match %00 to %1f, which encode control characters
	loopback      = `(localhost|127(\.\d{1,3}){3}|\[::1\])` // the traffic to such a host does not leave the machine (compare loginDanger)
)

var hostKey = regexp.MustCompile(`^(localhost|@[a-z0-9][\w.-]*|` +
	`((https:)?//[a-z0-9][a-z0-9.-]*(:\d+)?|http://` + loopback + `(:\d+)?|[a-z0-9][a-z0-9-]*(\.[a-z0-9-]+)+(:\d+)?|[a-z0-9][a-z0-9-]*:\d+|\[[0-9a-f:.]+\](:\d+)?)(/[\w.~/-]*)?)$`)

// isHost reports whether a key in a file is the name of a host, an address, or a scope of npm.
// A tool does not read such a key as the name of a setting. isHost returns false for a URL with
// http, because a tool could send the secret without encryption. isHost compares the whole key,
// because some programs end a key at a character such as #.
func isHost(key string) bool { return hostKey.MatchString(key) }

const npmRegistry = "https://registry.npmjs.org"

// encryptedURL matches the URL of a server if the traffic is encrypted or does not leave the
// machine.
var encryptedURL = regexp.MustCompile(`^(https://|http://` + loopback + `(:\d+)?(/|$))`)

// isHarmlessNPMFile checks a .npmrc. npm installs code from the registry that the key registry
// names, so this registry must be npm's own. The key of a scope, for example @corp:registry, may
// name any registry that encryptedURL matches.
func isHarmlessNPMFile(template string) bool {
	keepsRegistry := func(line string) bool {
		key, value, _ := strings.Cut(strings.ToLower(line), "=")
		key, value = strings.TrimSpace(key), strings.Trim(value, ` "'`)
		if strings.HasSuffix(key, ":registry") {
			return encryptedURL.MatchString(value)
		}
		return key != "registry" || oneOf(npmRegistry, npmRegistry+"/")(value)
	}
	return !readsVariables(template) && hasOnlyNPMKeys(template) && linesAre(template, keepsRegistry, keepsRegistry)
}

// hasOnlyNPMKeys accepts the keys of npm's credentials, for example
// "//registry.npmjs.org/:_authToken", and the keys of registries. pnpm runs the program in
// the key "//HOST/:tokenHelper", and does not ask for an approval. npm and pnpm end a key at #
// or ;, so only keys without unusual characters are accepted.
var hasOnlyNPMKeys = hasOnlyLines(`(registry|@[a-z0-9._~-]+:registry|(//[a-z0-9.-]+(:\d+)?(/[\w.~-]+)*/?:)?` + npmCredential + `)([ \t]*=.*)?`)

// readsVariables reports whether a tool that replaces ${NAME} could add the value of a variable to
// the file. The value of a variable can be a secret that does not belong in this file.
// readsVariables also returns true for \ and &, because a tool can replace an escape sequence
// before it replaces a variable.
func readsVariables(template string) bool {
	text := withoutPlaceholders(template)
	return strings.Contains(text, "${") || strings.ContainsAny(text, `\&`)
}

// isHarmlessGradleFile checks a gradle.properties. It accepts a property whose name ends in a word
// for a credential, for example mavenPassword, because gradle passes such a property to the build
// and does not obey it. It refuses the properties that gradle itself obeys, for example
// org.gradle.java.home.
func isHarmlessGradleFile(template string) bool {
	return hasOnlyGradleKeys(template) && !gradleSetting.MatchString(withoutPlaceholders(template)) && !gradleSetting.MatchString(placeholder.ReplaceAllString(template, "\n"))
}

var (
	hasOnlyGradleKeys = hasOnlyLines(`([a-z][\w.-]*)?(key|keyid|password|token|user|username)([=: \t][^\\]*)?`)
	gradleSetting     = regexp.MustCompile(`(?im)^[ \t]*(org\.gradle|systemprop)`)
)

// hasOnlyLines returns a check of a file whose lines match a regular expression, or are empty, or
// are comments. The check ignores the case, and removes the placeholders from a line before it
// compares the line. The expression must match the whole key of a line, because some programs end a
// key at a character such as #, or remove quotes.
func hasOnlyLines(expression string) func(string) bool {
	line := regexp.MustCompile(`^(` + expression + `|[#;].*)?$`)
	isHarmlessLine := func(text string) bool { return line.MatchString(strings.ToLower(text)) }
	return func(template string) bool {
		return linesAre(template, isHarmlessLine, func(tail string) bool { return oneOf(`"`, "'")(tail) || isHarmlessLine(tail) })
	}
}

// linesMatch is similar to hasOnlyLines, for files with values that are separated by : or @. In
// contrast to hasOnlyLines, ; does not begin a comment, and a tail may begin with : or @ (see
// linesAre).
func linesMatch(expression string) func(string) bool {
	line := regexp.MustCompile(`(?i)^(` + expression + `|#.*)?$`)
	return func(template string) bool {
		return linesAre(template, line.MatchString, func(tail string) bool {
			return strings.HasPrefix(tail, "@") || strings.HasPrefix(tail, ":") || line.MatchString(tail)
		})
	}
}

// linesAre checks the lines of a template without their placeholders. It also checks the
// tails. A tail is the part of a line after a placeholder, up to the next placeholder or up
// to the end of the line. If a value ends in a line break, the tail after the value becomes a
// line of its own. linesAre removes the spaces around the lines.
func linesAre(template string, isHarmlessLine, isHarmlessTail func(string) bool) bool {
	const mark = "{{}}"
	strip := func(line string) string { return strings.TrimSpace(strings.ReplaceAll(line, mark, "")) }
	template = placeholder.ReplaceAllString(template, mark) // a placeholder can contain line breaks, so replace the placeholders before the lines are separated
	for line := range strings.SplitSeq(template, "\n") {
		if !isHarmlessLine(strip(line)) {
			return false
		}
		for _, tail, found := strings.Cut(line, mark); found; _, tail, found = strings.Cut(tail, mark) {
			part, _, _ := strings.Cut(tail, mark)
			if !isHarmlessTail(strip(tail)) || !isHarmlessTail(strip(part)) {
				return false
			}
		}
	}
	return true
}

// hasOnlyLogins reports whether a .netrc contains only logins of named machines. A .netrc can also
// contain macros, which ftp executes, and a default login, which is sent to every server.
// hasOnlyLogins checks the file once with empty values and once with line breaks as values, because
// the words of the file can differ. Some programs ignore the case of a word, and remove quotes and
// backslashes.
func hasOnlyLogins(template string) bool {
	return hasOnlyNetrcWords(withoutPlaceholders(template)) && hasOnlyNetrcWords(placeholder.ReplaceAllString(template, "\n"))
}

var netrcValue = regexp.MustCompile(`^[\w.@:/+=~%-]+$`)

func hasOnlyNetrcWords(text string) bool {
	words := strings.Fields(strings.ToLower(text))
	for i := 0; i < len(words); i++ {
		switch words[i] {
		case "machine", "login", "password", "account":
			// If the next word is a keyword, the value was only a placeholder, which was removed.
			// Otherwise the next word is the value. netrcValue does not match #, because some
			// programs read # as the start of a comment.
			if i+1 < len(words) && !oneOf("machine", "default", "login", "password", "account", "macdef")(words[i+1]) {
				i++
				if !netrcValue.MatchString(words[i]) {
					return false
				}
			}
		default:
			return false
		}
	}
	return true
}

// isHarmlessYarnFile checks a .yarnrc.yml. It refuses a file that contains the word lockfile,
// because yarn does not parse a file with the header of a lockfile as YAML. yarn installs code from
// the server in npmRegistryServer, so only the usual servers are accepted there. The server of a
// scope can be any server.
func isHarmlessYarnFile(template string) bool {
	keepsRegistry := func(text string) bool {
		var file struct {
			Registry yaml.Node `yaml:"npmRegistryServer"`
		}
		err := yaml.Unmarshal([]byte(text), &file)
		return err == nil && (file.Registry.IsZero() || oneOf("https://registry.yarnpkg.com", npmRegistry)(strings.TrimSuffix(file.Registry.Value, "/")))
	}
	for _, value := range []string{"", "\n", "x"} {
		if !keepsRegistry(placeholder.ReplaceAllString(template, value)) {
			return false
		}
	}
	return !readsVariables(template) && !strings.Contains(strings.ToLower(withoutPlaceholders(template)), "lockfile") && hasOnlyYAMLKeys(func(key string) bool {
		return isHost(key) || oneOf("npmalwaysauth", "npmauthident", "npmauthtoken", "npmregistries", "npmregistryserver", "npmscopes")(key)
	})(template)
}

// isHarmlessGHFile checks a hosts.yml of gh. Every setting of gh can be in such a file, for
// example the name of a browser, which gh runs.
func isHarmlessGHFile(template string) bool {
	type user struct {
		Token    string `yaml:"oauth_token"`
		Protocol string `yaml:"git_protocol"`
	}
	hasOnlyUsers := func(text string) bool {
		var hosts map[string]struct {
			user  `yaml:",inline"`
			User  string
			Users map[string]user
		}
		decoder := yaml.NewDecoder(strings.NewReader(text))
		decoder.KnownFields(true)
		if err := decoder.Decode(&hosts); err != nil && !errors.Is(err, io.EOF) {
			return false
		}
		for host := range hosts {
			if !isHost(strings.ToLower(host)) {
				return false
			}
		}
		return true
	}
	return hasOnlyYAMLKeys(ghKey.MatchString)(template) && hasOnlyUsers(withoutPlaceholders(template)) && hasOnlyUsers(placeholder.ReplaceAllString(template, "\n"))
}

var ghKey = regexp.MustCompile(`^[a-z0-9][\w.-]*(:\d+)?$`)

// googleServers contains the keys that name a server in a file with Google's credentials, with the
// harmless values of each key. Google's tools send the credential to these servers.
var googleServers = map[string]func(value string) bool{
	"auth_uri":        oneOf("https://accounts.google.com/o/oauth2/auth", "https://accounts.google.com/o/oauth2/v2/auth"),
	"token_uri":       oneOf("https://oauth2.googleapis.com/token", "https://accounts.google.com/o/oauth2/token", "https://www.googleapis.com/oauth2/v3/token", "https://www.googleapis.com/oauth2/v4/token"),
	"universe_domain": oneOf("googleapis.com"),
}

// isHarmlessGoogleFile checks a file with Google's credentials. It replaces each placeholder with
// a letter before it compares the servers, so that a server cannot contain a placeholder.
func isHarmlessGoogleFile(template string) bool {
	var doc yaml.Node
	if yaml.Unmarshal([]byte(placeholder.ReplaceAllString(template, "x")), &doc) != nil {
		return false
	}
	return hasOnlyYAMLKeys(isGoogleKey)(template) && valuesAre(&doc, googleServers)
}

// isHarmlessKubeFile checks a kubeconfig. kubectl sends the credential to a server without
// encryption if its URL begins with http, and in some cases also if its URL has no scheme.
func isHarmlessKubeFile(template string) bool {
	isHarmlessServer := func(value string) bool { return value == "" || encryptedURL.MatchString(strings.ToLower(value)) }
	return hasOnlyKubeKeys(template) && documentsAre(withoutPlaceholders(template), func(doc *yaml.Node) bool {
		return valuesAre(doc, map[string]func(string) bool{"server": isHarmlessServer})
	})
}

var hasOnlyKubeKeys = hasOnlyYAMLKeys(oneOf(
	"apiversion", "kind", "preferences", "current-context", "clusters", "cluster", "name", "server", "tls-server-name",
	"certificate-authority-data", "contexts", "context", "namespace", "users", "user", "token", "username", "password",
	"client-certificate-data", "client-key-data"))

// hasOnlyYAMLKeys returns a check of the keys of a YAML or JSON file. JSON is a subset of
// YAML. The check ignores the case of a key, as JSON decoders for Go do. The check refuses a
// document that is not a mapping, because the tool may read the document in another format. It
// also refuses a backslash, because the operator could not read an escape sequence.
func hasOnlyYAMLKeys(isHarmless func(key string) bool) func(string) bool {
	areHarmless := func(doc *yaml.Node) bool { return doc.Content[0].Kind == yaml.MappingNode && keysAre(doc, isHarmless) }
	return func(template string) bool {
		// Check the keys with empty values, and also with line breaks as values, because a value
		// that ends in a line break can begin another key.
		return !strings.Contains(withoutPlaceholders(template), `\`) && documentsAre(withoutPlaceholders(template), areHarmless) && documentsAre(placeholder.ReplaceAllString(template, "\n"), areHarmless)
	}
}

// documentsAre reports whether isHarmless accepts every document in a YAML file.
func documentsAre(text string, isHarmless func(doc *yaml.Node) bool) bool {
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for {
		var doc yaml.Node
		switch err := decoder.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return true
		case err != nil || !isHarmless(&doc):
			return false // even if this decoder refuses the file, a tool may accept it
		}
	}
}

// keysAre reports whether isHarmless accepts every key of every mapping in a document. keysAre
// does not follow an alias, because the document also contains the text to which the alias
// refers. It returns false for an alias as a key, because the alias can refer to a value, and
// isHarmless does not check values. It also returns false for a tag other than !, because with
// a tag, a tool may decode the key or the value, or create an object of another type.
func keysAre(n *yaml.Node, isHarmless func(key string) bool) bool {
	for i, child := range n.Content {
		isKey := n.Kind == yaml.MappingNode && i%2 == 0
		if isKey && (child.Kind != yaml.ScalarNode || !isHarmless(strings.ToLower(child.Value))) ||
			child.Style&yaml.TaggedStyle != 0 || !keysAre(child, isHarmless) {
			return false
		}
	}
	return true
}

// valuesAre reports whether each value in a document is harmless. The parameter isHarmless contains a
// function for each key, in lower case, whose values are checked. A value that is not a scalar is
// not harmless, for example an alias.
func valuesAre(n *yaml.Node, isHarmless map[string]func(value string) bool) bool {
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 {
			check := isHarmless[strings.ToLower(n.Content[i-1].Value)]
			if check != nil && (child.Kind != yaml.ScalarNode || !check(child.Value)) {
				return false
			}
		}
		if !valuesAre(child, isHarmless) {
			return false
		}
	}
	return true
}

// hasOnlyElements returns a check of an XML file. The check refuses everything that could give an
// element a second name, for example an entity. It accepts only UTF-8, because in some other
// encodings, a character other than < means <. It refuses variables such as ${NAME}, because maven
// would replace them with values from outside of the file.
func hasOnlyElements(names ...string) func(string) bool {
	element := regexp.MustCompile(`^</?(` + strings.Join(names, "|") + `)\s*/?>`)
	root := regexp.MustCompile(`^<(settings(\s+xmlns[:a-z]*="[^"<>&]*"|\s+xsi:schemaLocation="[^"<>&]*")*\s*|\?xml(\s+(version=["']1\.0["']|encoding=["'](utf|UTF)-8["']|standalone=["'](yes|no)["']))*\s*\?)>`)
	return func(template string) bool {
		if readsVariables(template) {
			return false
		}
		for rest := withoutPlaceholders(template); ; {
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
