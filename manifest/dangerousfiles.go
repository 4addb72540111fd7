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
// the path matches one of the patterns. A pattern that begins with / is compared with the
// whole path. Any other pattern is compared with the end of the path, because keyhatch does
// not know which directory is the home directory or the project in the container. Each
// element of a pattern is as in path.Match, but ** at the end matches any number of elements.
// The patterns are in lower case, and the case of a path is ignored, because some file
// systems ignore it.
type fileRule struct {
	reason   string
	patterns []string // sorted
}

// The reasons why a file is dangerous.
const (
	ownFile    = "keyhatch keeps its own files in this directory"
	otherNames = "this directory contains other names of files that exist elsewhere"
	systemFile = "the system and its services obey the files in this directory"
	hostFile   = "this file decides what a dev container or keyhatch does, also on the host"
	codeFile   = "files with this ending are run or loaded as code"
	sshFile    = "ssh obeys this file: it can run commands, or decide who can log in"
	gitFile    = "git obeys this file: it can run commands"
	shellFile  = "a shell runs this file"
	loginFile  = "the system obeys this file at a login"
	agentFile  = "a coding agent obeys this file: it can run commands"
	editorFile = "an editor obeys this file: it can run commands"
	codeDir    = "programs run or load the files in this directory"
	buildFile  = "a build obeys this file: it can run commands"
	trustFile  = "programs trust the servers that have a certificate of this file"
	toolFile   = "a tool obeys this file: it can run commands or load code"

	extraSettings = "the template contains more than credentials: the tool may run commands or trust other servers because of it"
	unknownFile   = "the template contains more than the secret, and the file is not a known file for credentials: a program may run commands because of it"
)

// fileDanger returns why a file is dangerous, or "". A semicolon separates two reasons.
func fileDanger(in *schema.Injection) string {
	var reasons []string
	if reason := pathDanger(in.Path, in.Template); reason != "" {
		reasons = append(reasons, reason)
	}
	if bits, err := strconv.ParseUint(in.Mode, 8, 32); err != nil || bits&0o111 != 0 {
		reasons = append(reasons, "the file is executable")
	}
	return strings.Join(reasons, "; ")
}

// plainTemplate matches a template that contains only one placeholder and white space. The
// file then contains only the secret, as without a template.
var plainTemplate = regexp.MustCompile(`^\s*\{\{[^{}]*\}\}\s*$`)

// pathDanger marks a file in two cases. The table systemFiles or the table toolFiles
// contains its path: then even a secret in the file can do harm. Or untrusted code can
// choose a text of the file, which is the template, and the check of an ordinary file does
// not accept the template. The tables of dangerous files can never be complete. Therefore the
// safety of a template does not depend on them.
func pathDanger(p, template string) string {
	if strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "the path contains characters that are invisible or look like other characters"
	}
	p = strings.ToLower(path.Clean(p))
	if rest, ok := strings.CutPrefix(p, "/var/run/"); ok { // a link to /run
		p = "/run/" + rest
	}
	elements := strings.Split(p, "/")
	if reason := findReason(systemFiles, elements, nil); reason != "" {
		return reason
	}
	ordinary, isOrdinary := findOrdinaryFile(elements)
	if reason := findReason(toolFiles, elements, ordinary.patterns); reason != "" {
		return reason
	}
	switch {
	case template == "" || plainTemplate.MatchString(template):
		return ""
	case matchesAny(variableFiles, elements):
		return variableFileDanger(template)
	case !isOrdinary:
		return unknownFile
	case !ordinary.isHarmless(template):
		return extraSettings
	}
	return ""
}

// findReason returns the reason of the first rule that applies to the file, or "". The
// exceptions are the patterns of an ordinary file. They contradict a rule only if they
// contain the directory or the name to which the rule applies. For example,
// .docker/config.json is an exception from .docker/**, but kubeconfig is not an exception
// from .bash*/**, because a shell runs every file in ~/.bashrc.d.
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

// systemFiles are dangerous, whatever their names are.
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

// toolFiles are dangerous, except for the files in ordinaryFiles. See findReason.
var toolFiles = []fileRule{
	{sshFile, []string{
		".ssh/allowed_signers", ".ssh/authorized_keys*", ".ssh/config", ".ssh/config.d/**",
		".ssh/environment", ".ssh/known_hosts*", ".ssh/rc",
	}},
	{gitFile, []string{
		"*.git/config", "*.git/hooks/**", ".config/git/**", ".git/**", ".gitattributes", ".gitconfig*/**",
		".githooks/**", ".gitmodules", ".husky/**", ".lefthook*/**", "gitconfig", "lefthook*",
	}},
	{shellFile, []string{
		".bash*/**", ".config/fish/**", ".csh*", ".envrc", ".kshrc", ".login*", ".logout", ".mkshrc",
		".oh-my-*/**", ".profile", ".profile.d/**", ".selected_editor", ".shrc", ".tcsh*", ".xinitrc", ".xprofile",
		".xsession*", ".zlog*", ".zprofile*", ".zsh*/**", "cron.d/**", "crontab", "crontabs/**",
	}},
	{loginFile, []string{
		".config/autostart*/**", ".config/environment.d/**", ".config/systemd/**", ".forward",
		".k5login", ".local/share/dbus-1/**", ".local/share/systemd/**", ".pam_environment", ".rhosts",
		".shosts",
	}},
	{agentFile, []string{
		".aider*", ".claude*/**", ".cline/**", ".clinerules*/**", ".codex/**", ".config/opencode/**",
		".continue/**", ".cursor*/**", ".gemini/**", ".kiro/**", ".mcp.json", ".opencode/**", ".roo*/**",
		".windsurf*/**", "agents.md", "claude*.md", "gemini.md", "mcp.json",
		"opencode.json*",
	}},
	{editorFile, []string{
		"*.code-workspace", ".emacs*/**", ".exrc", ".idea/**", ".nanorc", ".vim*/**", ".vscode*/**",
		".zed/**",
	}},
	{codeDir, []string{
		".bin/**", ".local/lib/**", ".local/share/**", "__pycache__/**", "autoload/**", "bin/**",
		"cli-plugins/**", "dist-packages/**", "hooks*/**", "init.d/**", "lib/python*/**", "libexec/**",
		"node_modules/**", "pyvenv.cfg", "sbin/**", "shims/**", "site-packages/**",
	}},
	{buildFile, []string{
		"*.csproj", "*.props", "*.targets", ".bazelrc", ".buildkite/**", ".bunfig.toml", ".circleci/**",
		".github/**", ".gitlab-ci.yml", ".justfile", ".mvn/**", ".pre-commit-config.yaml", ".travis.yml",
		"azure-pipelines*", "build.bazel", "build.xml", "bunfig.toml", "cargo.toml", "cmakelists.txt",
		"cmakepresets.json", "compose*.y*ml", "composer.json", "configure", "containerfile*",
		"deno.json*", "docker-compose*.y*ml", "dockerfile*", "gemfile*", "gnumakefile", "go.mod",
		"go.work", "gradle.properties", "gradlew", "jenkinsfile*", "justfile", "makefile*",
		"module.bazel", "mvnw", "package.json", "pipfile", "pnpm-workspace.yaml", "pom.xml", "procfile*",
		"pyproject.toml", "pytest.ini", "rakefile*", "requirements*.txt", "setup.cfg", "taskfile.y*ml",
		"tiltfile", "tox.ini", "vagrantfile", "workspace.bazel",
	}},
	{trustFile, []string{".postgresql/root.crt"}},
	{toolFile, []string{
		".*rc", ".*rc.d/**", ".*rc.json", ".*rc.toml", ".*rc.y*ml", ".ansible.cfg", ".asdf/**", ".aws/cli/**",
		".azure/alias", ".azure/cliextensions/**", ".bundle/**", ".cargo/**", ".composer/**",
		".config/**", ".cpan/**", ".ctags*/**", ".default-*", ".docker/**", ".dotnet/**", ".erlang*",
		".gdbearlyinit", ".gdbinit*", ".ghci", ".gnupg/*.conf", ".gnupg/trustedkeys*", ".gradle/**",
		".guile", ".iex*", ".ipython/**", ".ivy2/**", ".julia/**", ".jupyter/**", ".kube/**",
		".lessfilter", ".lesskey", ".lldbinit*", ".luarocks/**", ".m2/**", ".mailcap", ".makepkg.conf",
		".mise*/**", ".mix/**", ".mozilla/**", ".nix-*/**", ".node_libraries/**", ".node_modules/**",
		".nuget/**", ".nvm/**", ".ocamlinit", ".password-store/.extensions/**", ".perldb", ".pip/**",
		".pki/**", ".pyenv/**", ".r/**", ".rbenv/**", ".renviron", ".rpmmacros", ".rprofile", ".rspec*",
		".rustup/**", ".sbt/**", ".sdkman/**", ".subversion/**", ".terraform.d/**", ".tmux*/**",
		".tool-versions", ".user.ini", ".volta/**", ".xdefaults*", ".xresources*", ".yarn/**",
		"/run/secrets/rhsm/**", "ansible.cfg", "devbox.json", "mise.toml", "my.cnf", "nodemon.json",
		"nuget.config", "openssl.cnf", "php.ini", "pip.conf", "rebar.config", "resolv.conf", "sudoers",
		"sudoers.d/**",
	}},
}
