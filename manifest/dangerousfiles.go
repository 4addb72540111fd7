package manifest

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// A fileRule contains the reason why some files are dangerous. The rule applies to a file if
// the path matches one of the patterns. A pattern that begins with / must match the whole
// path. Any other pattern must match the end of the path, because keyhatch does not know which
// directory is the home directory or the project in the container. Each element of a pattern
// has the syntax of path.Match, but ** as the last element matches any number of elements,
// also none. The patterns are in lower case. Upper case in a path is compared as lower case,
// because some file systems ignore the case.
type fileRule struct {
	reason   string
	patterns []string // sorted
}

// The reasons why a file is dangerous.
const (
	ownFile    = "keyhatch keeps its own files in this directory"
	otherNames = "a path in this directory can lead to a file outside of the directory"
	systemFile = "the system and its services obey the files in this directory"
	hostFile   = "this file decides what a dev container or keyhatch does, also on the host"
	codeFile   = "programs run files with this ending, or load them as code"
	sshFile    = "ssh obeys this file, so the file can make ssh run commands, or decide who can log in"
	gitFile    = "git obeys this file, so the file can make git run commands"
	shellFile  = "a shell runs this file"
	loginFile  = "the system obeys this file when a user logs in"
	agentFile  = "a coding agent obeys this file, so the file can make the agent run commands"
	editorFile = "an editor obeys this file, so the file can make the editor run commands"
	codeDir    = "programs run or load the files in this directory"
	buildFile  = "a build obeys this file, so the file can make the build run commands"
	toolFile   = "a tool obeys this file, so the file can make the tool run commands or load code"

	writableFile  = "other users can write to the file"
	longPath      = "the path is so long that it can push other changes off the screen"
	unusualText   = "the template contains characters other than printable ASCII, tabs, and line feeds: programs do not agree on which of these characters are spaces or line breaks"
	extraSettings = "the template contains text that is not known to be harmless in this file: a tool that reads the file may run commands or trust other servers"
	longTemplate  = "the template is so long that it can push other changes off the screen"
	manyComments  = "the template contains so many comments or empty lines that they can push other changes off the screen"
	unknownName   = "the name is not usual for a file that contains only a secret: a program that reads the file may run commands or load code"
	unknownFile   = "the template contains more than the secret, and the file is not a known file for credentials: a program that reads the file may run commands"
)

// fileDanger returns the reasons why a file is dangerous, separated by semicolons. If the file
// is not dangerous, the result is "".
func fileDanger(in *schema.Injection) string {
	var reasons []string
	if reason := pathDanger(in.Path, in.Template); reason != "" {
		reasons = append(reasons, reason)
	}
	if bits, err := strconv.ParseUint(in.Mode, 8, 32); err != nil || bits&0o111 != 0 {
		reasons = append(reasons, "the file is executable")
	}
	if bits, err := strconv.ParseUint(in.Mode, 8, 32); err == nil && bits&0o022 != 0 {
		reasons = append(reasons, writableFile)
	}
	if len(in.Path) > maxUsualPath {
		reasons = append(reasons, longPath)
	}
	if reason := lengthDanger(in.Template); reason != "" {
		reasons = append(reasons, reason)
	}
	return strings.Join(reasons, "; ")
}

// If a path has more bytes than maxUsualPath, it is dangerous, because a terminal would show it
// in many lines.
const maxUsualPath = 200

// If a template has more lines than maxTemplateLines, it is dangerous, because it could push
// other changes off the screen on which an operator approves them. The limit for comments and
// empty lines is lower, because untrusted code can add them to a harmless template, and no
// other check notices them.
const (
	maxTemplateLines = 40
	maxCommentLines  = 10
)

// lengthDanger returns why the length of a template is dangerous, or "".
func lengthDanger(template string) string {
	lines, comments := templateLines(template), 0
	inComment := false
	for _, line := range lines {
		// A line that begins with a colon continues the line before it, so inComment does not
		// change.
		if text, isNew := strings.CutPrefix(line, "| "); isNew {
			text = strings.TrimLeft(strings.ReplaceAll(text, `\t`, " "), " ")
			inComment = text == "" || text[0] == '#' || text[0] == ';'
		}
		if inComment {
			comments++
		}
	}
	switch {
	case len(lines) > maxTemplateLines:
		return longTemplate
	case comments > maxCommentLines:
		return manyComments
	}
	return ""
}

// plainTemplate matches a template that contains only one placeholder and white space.
// Apart from white space, the file then contains only the secret or one of its fields.
var plainTemplate = regexp.MustCompile(`^\s*\{\{[^{}]*\}\}\s*$`)

// unusualCharacter matches the characters that make the template of a known file dangerous.
// Programs do not agree on which of these characters are white space or line breaks.
var unusualCharacter = regexp.MustCompile(`[^\n\t -~]`)

// pathDanger returns why the path or the template of a file is dangerous, or "". A path is
// dangerous if it contains unusual characters, or if a table of dangerous files contains it,
// because even a file with only a secret can do harm there. A file that contains only a secret is
// also dangerous if its name is not usual for such a file, because no table can contain all files
// that a program obeys. Untrusted code writes the template. Therefore a template with other text
// than a placeholder is dangerous, unless the check of an ordinary file or of a file of variables
// accepts the template.
func pathDanger(p, template string) string {
	if strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "the path contains characters other than printable ASCII, which can be invisible or look like other characters"
	}
	elements := pathElements(p)
	p = strings.Join(elements, "/")
	if reason := findReason(systemFiles, elements, nil); reason != "" {
		return reason
	}
	ordinary, isOrdinary := findOrdinaryFile(elements)
	if reason := findReason(toolFiles, elements, ordinary.patterns); reason != "" {
		return reason
	}
	isVariableFile := matchesAny(variableFiles, elements)
	switch isPlain := template == "" || plainTemplate.MatchString(template); {
	case isPlain && !isOrdinary && !isVariableFile && !strings.HasPrefix(p, "/run/secrets/") && !ordinaryName.MatchString(path.Base(p)):
		return unknownName
	case isPlain:
		return ""
	case !isOrdinary && !isVariableFile:
		return unknownFile
	case unusualCharacter.MatchString(template):
		return unusualText
	case isVariableFile:
		return variableFileDanger(template)
	case !ordinary.isHarmless(template):
		return extraSettings
	}
	return ""
}

// findReason returns the reason of the first rule that applies to the file, or "". The exceptions
// are the patterns of an ordinary file. An exception cancels a rule only if the rule also applies
// to the text of the exception. For example, the exception .docker/config.json cancels the rule
// .docker/**. The exception kubeconfig does not cancel the rule .bash*/**, because a shell runs
// every file in ~/.bashrc.d, even a file with the name kubeconfig.
func findReason(rules []fileRule, elements, exceptions []string) string {
	for _, rule := range rules {
		for _, pattern := range rule.patterns {
			isException := func(exception string) bool {
				return matchesPath(exception, elements) && matchesPath(pattern, strings.Split(exception, "/"))
			}
			if matchesPath(pattern, elements) && !slices.ContainsFunc(exceptions, isException) {
				return rule.reason
			}
		}
	}
	return ""
}

// systemFiles are the files that are always dangerous, even if ordinaryFiles contains a
// pattern for the same file.
var systemFiles = []fileRule{
	{ownFile, []string{
		"/dev/shm/keyhatch*/**", "/run/keyhatch/**", "/run/user/*/keyhatch/**",
	}},
	{otherNames, []string{
		"/dev/fd/**", "/proc/**", "/run/host/**",
	}},
	{systemFile, []string{
		"/bin/**", "/boot/**", "/dev/*", "/dev/[^s]*/**", "/dev/s[^h]*/**", "/etc/**", "/lib*/**",
		"/nix/**", "/run/*.d/**", "/run/containerd/**", "/run/dbus/**", "/run/docker*/**", "/run/nscd/**",
		"/run/sudo/**", "/run/systemd/**", "/run/udev/**", "/run/user/*/systemd/**", "/sbin/**",
		"/snap/**", "/sys/**", "/usr/**", "/var/db/**", "/var/lib/cloud/**", "/var/lib/containerd/**",
		"/var/lib/docker/**", "/var/lib/dpkg/**", "/var/lib/polkit-1/**", "/var/lib/systemd/**",
		"/var/spool/**",
	}},
	{hostFile, []string{
		".devcontainer.json", ".devcontainer/**", ".keyhatch/**", "devcontainer.json",
	}},
	{codeFile, []string{
		"*.a", "*.appimage", "*.awk", "*.bash", "*.bat", "*.bzl", "*.cgi", "*.cjs", "*.class", "*.cmake",
		"*.cmd", "*.cts", "*.deb", "*.desktop", "*.dll", "*.dylib", "*.el", "*.elc", "*.erl", "*.ex",
		"*.exe", "*.exs", "*.fish", "*.gemspec", "*.go", "*.gradle", "*.groovy", "*.jar", "*.jl", "*.js",
		"*.jsx", "*.ko", "*.ksh", "*.kts", "*.lua", "*.mjs", "*.mk", "*.mount", "*.mts", "*.nix",
		"*.node", "*.o", "*.path", "*.phar", "*.php", "*.pl", "*.pm", "*.ps1", "*.psd1", "*.psm1",
		"*.pth", "*.py", "*.pyc", "*.pyd", "*.pyo", "*.pyz", "*.r", "*.rb", "*.rpm", "*.rs", "*.rules",
		"*.sbt", "*.scala", "*.service", "*.sh", "*.so", "*.so.*", "*.socket", "*.tcl", "*.tf",
		"*.timer", "*.ts", "*.tsx", "*.vim", "*.war", "*.wasm", "*.whl", "*.zsh",
	}},
}

// toolFiles are the files that are dangerous unless ordinaryFiles contains an exception for the
// file (see findReason). A rule for a directory is necessary because a file with an ordinary name
// can be dangerous there (see ordinaryName). A rule for a single file often only gives a more exact
// reason, because most files without an ordinary name are dangerous anyway.
var toolFiles = []fileRule{
	{sshFile, []string{".ssh/**", "authorized_keys*"}},
	{gitFile, []string{"*.git/**", ".config/git/**", ".gitconfig*/**", ".githooks/**", ".husky/**"}},
	{shellFile, []string{
		".bash*/**", ".config/fish/**", ".csh*", ".envrc", ".kshrc", ".login*", ".oh-my-*/**", ".profile*/**",
		".tcsh*", ".zlog*", ".zprofile*", ".zsh*/**", "crontab", "crontabs/**",
	}},
	{loginFile, []string{".config/autostart*/**", ".config/environment.d/**", ".config/systemd/**", ".pam_environment"}},
	{agentFile, []string{
		".claude*/**", ".clinerules*/**", ".codex/**", ".cursor*/**", ".gemini/**", ".mcp.json", ".roo*/**", ".windsurf*/**",
		"agents.md", "claude*.md", "mcp.json",
	}},
	{editorFile, []string{".emacs*/**", ".idea/**", ".vim*/**", ".vscod*/**", ".zed/**"}},
	{codeDir, []string{
		"*.d/**", ".bin/**", ".local/lib/**", ".local/share/**", "__pycache__/**", "autoload/**", "bin/**",
		"cli-plugins/**", "dist-packages/**", "group_vars/**", "hooks*/**", "host_vars/**", "lib/python*/**", "libexec/**",
		"node_modules/**", "sbin/**", "shims/**", "site-packages/**", "templates/**",
	}},
	{buildFile, []string{
		".buildkite/**", ".circleci/**", ".forgejo/**", ".gitea/**", ".github/**", ".mvn/**", "dockerfile*", "makefile*", "package.json",
	}},
	{toolFile, []string{".*/*/**", "/run/secrets/rhsm/**"}},
}

// ordinaryName matches usual names of files that contain only credentials. The name must be in
// lower case. The last word before the ending is a word for a credential, or the ending belongs
// to a format for keys or certificates.
var ordinaryName = regexp.MustCompile(`(^|[._-])((access|api|auth|client|deploy|encryption|license|master|private|public|secret|signing|ssh)?(key|password|secret|token)s?|` +
	`ca|cert(ificate)?s?|credentials?|(ht)?passwd|keyfile|keystore|passphrase|truststore)(\.(ini|json|properties|toml|txt|xml|ya?ml))?$|` +
	`.\.(age|asc|cer|crt|der|gpg|jks|kdbx|key|keystore|keytab|p12|p7b|p8|password|pem|pfx|ppk|secret|token)$`)
