package manifest

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

func danger(p, mode, template string) string {
	return fileDanger(&schema.Injection{As: schema.InjectAsFile, Path: p, Mode: mode, Template: template})
}

func TestDangerousFiles(t *testing.T) {
	for _, p := range strings.Fields(`
		~/.bashrc ~/.bash_profile ~/.bash_login ~/.bash_logout ~/.bash_aliases ~/.bash_completion.d/x ~/.profile ~/.zshenv ~/.zshrc ~/.zprofile ~/.zlogin ~/.zlogout ~/.kshrc ~/.cshrc ~/.tcshrc
		~/.login ~/.inputrc ~/.envrc /workspaces/api/.envrc ~/.config/fish/config.fish ~/.oh-my-zsh/custom/x
		/root/.bashrc /home/x/.bashrc /var/home/x/.zshenv /Users/x/.zshrc /srv/any/.bashrc ~/.BASHRC ~/.Bash_Profile /HOME/X/.BASHRC
		/proc/self/cwd/x /proc/self/root/home/x/y /dev/fd/3 /dev/sda /dev/disk/x /dev/snd/x /dev/shm/keyhatch-0/api/files/X /run/keyhatch/broker.sock
		~/.ssh/config ~/.ssh/config.d/x ~/.ssh/authorized_keys ~/.ssh/authorized_keys2 ~/.ssh/rc ~/.ssh/environment ~/.ssh/known_hosts /home/x/.SSH/Config
		~/.gitconfig ~/.config/git/config ~/.config/git/hooks/pre-commit /workspaces/api/.git/config /workspaces/api/.git/hooks/pre-commit /srv/api.git/hooks/post-receive ~/.GIT/config .husky/x
		~/.config/autostart/x.desktop ~/.config/systemd/user/x.service ~/.config/systemd/user/credentials ~/.config/environment.d/50-x.conf ~/.pam_environment ~/.forward ~/.rhosts ~/.k5login
		~/.local/bin/git ~/bin/ls /opt/x/bin/tool ~/.local/lib/python3.12/site-packages/x.pth ~/.local/share/applications/x ~/.local/share/bash-completion/completions/git /srv/app/node_modules/x/index
		/x/sitecustomize.py /x/evil.pth /x/a.so /x/a.so.1 /x/a.sh /x/A.SH /x/a.js /x/a.rb /x/a.jar /x/a.service ~/.config/gh/hosts.sh
		/etc/passwd /etc/cron.d/x /etc/profile.d/x /etc/ld.so.preload /etc/sudoers.d/x /etc/.npmrc /ETC/passwd /usr/local/lib/x /bin/x /lib64/x /sbin/x /var/spool/cron/crontabs/x /sys/x /boot/x /run/systemd/system/x /run/user/1000/systemd/user/x
		~/.vimrc ~/.vim/x ~/.emacs ~/.emacs.d/init ~/.exrc ~/.nanorc ~/.vscode/settings.json /w/.vscode/tasks.json ~/.vscode-server/data/Machine/settings.json ~/.idea/x
		~/.claude/settings.json ~/.codex/config.toml ~/.cursor/mcp.json /w/.mcp.json /w/AGENTS.md /w/CLAUDE.md
		/w/.devcontainer/devcontainer.json /w/.devcontainer/.env /w/.devcontainer.json /w/.keyhatch/manifest.yaml /w/.devcontainer/keyhatch.yaml
		~/.cargo/config.toml ~/.cargo/env ~/.gradle/init.d/x ~/.m2/extensions.xml ~/.docker/cli-plugins/docker-x ~/.docker/daemon.json ~/.kube/kuberc ~/.aws/cli/alias ~/.gnupg/gpg-agent.conf
		~/.yarnrc ~/.gemrc ~/.irbrc ~/.pryrc ~/.curlrc ~/.wgetrc ~/.screenrc ~/.tmux.conf ~/.gdbinit ~/.psqlrc ~/.condarc ~/.bazelrc ~/.Rprofile ~/.terraformrc ~/.pip/pip.conf ~/.config/pip/pip.conf
		~/.config/gh/config.yml ~/.config/nvim/init.vim ~/.config/starship.toml ~/.config/direnv/direnvrc ~/.config/mise/config.toml ~/.config/containers/registries.conf ~/.config/unknown/settings.json
		/w/package.json /w/Makefile /w/Dockerfile /w/docker-compose.yml /w/compose.yaml /w/pyproject.toml /w/setup.cfg /w/Gemfile /w/Rakefile /w/Cargo.toml /w/.github/workflows/x.yml /w/.pre-commit-config.yaml /w/justfile
		/w/.mvn/extensions.xml /w/.mvn/jvm.config /w/.mvn/maven.config /w/gradle.properties /w/gradlew /w/mvnw ~/.gradle/init.gradle /w/init.gradle /w/lefthook.yml /w/.lefthook/pre-push/x
		/w/.user.ini /w/php.ini /w/.travis.yml /w/azure-pipelines.yml /w/.buildkite/pipeline.yml /w/.buildkite/token /w/opencode.json /w/.kiro/settings/mcp.json /w/.roo/mcp.json /w/mcp.json
		/w/CLAUDE.local.md /w/.windsurfrules /w/.clinerules /w/.clinerules/x.md /w/.zed/tasks.json /w/ansible.cfg /w/rebar.config /w/devbox.json ~/.ansible.cfg ~/.selected_editor ~/.postgresql/root.crt /w/nodemon.json /w/configure
		/w/.hg/hgrc /w/.jj/repo/config.toml /w/.helix/languages.toml ~/.codeium/windsurf/mcp_config.json ~/.vscodium-server/x.pem ~/.spacemacs ~/.gnus ~/.less ~/.pydistutils.cfg /w/pylintrc /w/mypy.ini
		/w/.flake8 /w/.rubocop.yml /w/.overcommit.yml /w/cdk.json /w/terragrunt.hcl /w/main.tf.json /w/helmfile.yaml /w/BSDmakefile /w/build.ninja /w/configure.ac /w/BUILD /w/WORKSPACE /w/SConstruct
		/w/Podfile /w/Brewfile /w/cpanfile /w/Package.swift /w/gradle/wrapper/gradle-wrapper.properties /w/.gitea/workflows/x.yml /w/.forgejo/workflows/token /w/.gitpod.yml /w/supervisord.conf
		~/.k9s/plugins.yml ~/.helm/plugins/x/plugin.yaml /run/s6/container_environment/LD_PRELOAD /w/group_vars/all/token /w/host_vars/x.key /w/chart/templates/token /x/bash_completion.d/token /x/conf.d/x.pem
		/x/authorized_keys ~/.ssh/unknown ~/.ssh/x/deploy_key ~/.docker/x ~/.unknown/token ~/.unknown/x/y.pem ~/.unknown/.env ~/.tokenrc /x/tokens.lua /x/key.nu /x/token.so /x/monkey /x/.lesskey /x/secrets.conf
		/w/config/database.yml /w/app.conf ~/.unknown-tool /x /w/new-agent.md /w/tool.toml /srv/app/settings.ini ~/c /run/x/y /w/secrets/x /tmp/x.yaml
		/run/tmpfiles.d/x.conf /run/modprobe.d/x.conf /run/udev/rules.d/x /run/systemd/x /var/run/tmpfiles.d/x /var/run/udev/x /var/run/keyhatch/x /run/host/etc/ld.so.preload /run/secrets/rhsm/rhsm.conf /var/run/secrets/rhsm/rhsm.conf`) {
		if danger(p, "0600", "") == "" {
			t.Errorf("%s is not marked", p)
		}
	}
	for _, p := range []string{"~/.b\u0430shrc", "~/.g\u200cit/config", "~/x\u202ey", "~/a\nb", "~/a\x1b[2J", "~/\u212aube"} {
		if got := danger(p, "0600", ""); !strings.Contains(got, "characters") {
			t.Errorf("%q: %s", p, got)
		}
	}
	// These are other spellings of dangerous paths. Parse refuses them, but fileDanger must
	// mark them, too.
	for _, p := range []string{"~//.bashrc", "~/./.bashrc", "~/x/../.bashrc", "/root//.bashrc", "//etc/passwd", "/srv/../etc/passwd"} {
		if danger(p, "0600", "") == "" {
			t.Errorf("%s is not marked", p)
		}
	}
}

// TestCredentialNamesInDangerousDirectories checks that every file in a dangerous directory is
// marked, even if the file has a usual name for a file with credentials.
func TestCredentialNamesInDangerousDirectories(t *testing.T) {
	for _, dir := range strings.Fields(`
		~/.bashrc.d ~/.zshrc.d ~/.profile.d ~/.zsh ~/.ssh/config.d /w/.husky /w/cron.d /w/.clinerules ~/.claude /w/hooks ~/bin /w/.git/hooks /w/.github/x ~/.docker/cli-plugins
		~/.vim /w/.vscode ~/.local/share/x ~/.config/environment.d ~/.config/fish ~/.config/systemd/user ~/.gradle/init.d /w/node_modules/x /run/secrets/rhsm`) {
		for _, name := range strings.Fields(`kubeconfig x.kubeconfig _netrc .netrc .npmrc .yarnrc.yml .env .env.local corp.env credentials.json my-service-account.json client_secret.json token key.pem .docker/config.json .config/x/token .gem/credentials`) {
			for _, template := range []string{"", "{{value}}", "name: x"} {
				if danger(dir+"/"+name, "0600", template) == "" {
					t.Errorf("%s/%s with the template %q is not marked", dir, name, template)
				}
			}
		}
	}
}

func TestOrdinaryFilesAreNotMarked(t *testing.T) {
	for _, p := range strings.Fields(`
		~/.npmrc /w/.npmrc ~/.aws/credentials ~/.aws/config ~/.netrc /home/x/.netrc ~/.docker/config.json ~/.kube/config ~/.config/gh/hosts.yml ~/.pypirc ~/.pgpass ~/.my.cnf ~/.git-credentials
		~/.config/git/credentials ~/.cargo/credentials.toml ~/.cargo/credentials ~/.gem/credentials ~/.m2/settings.xml ~/.m2/settings-security.xml ~/.gradle/gradle.properties ~/.yarnrc.yml
		~/.config/composer/auth.json ~/.composer/auth.json ~/.terraform.d/credentials.tfrc.json ~/.config/gcloud/application_default_credentials.json ~/.config/containers/auth.json
		~/.ssh/id_ed25519 ~/.ssh/id_rsa ~/.ssh/deploy_key ~/.gnupg/private.key ~/.vault-token ~/.config/sops/age/keys.txt ~/.claude/.credentials.json ~/.codex/auth.json
		/run/secrets/db_password /run/secrets/tls/key.pem /srv/app/config/master.key /workspaces/api/.env /workspaces/api/.env.local /workspaces/api/config/production.env /opt/app/keystore.p12 /var/lib/app/token ~/.keystore
		~/certs/client.pem /tmp/token /dev/shm/token /w/service-account.json /w/secrets.yaml /w/config/credentials.xml /w/tls.crt /w/db-password.txt /w/apiKey.json /w/API_KEY /w/ca-cert.pem /w/.htpasswd /w/api_tokens.toml
		~/.oci/oci_api_key.pem ~/.android/debug.keystore ~/.docker/key.pem ~/.minikube/client.key ~/.snowflake/rsa_key.p8 ~/.ssh/x.pem ~/.ssh/id_rsa.pub /run/secrets/DB /w/x.kubeconfig`) {
		if got := danger(p, "0600", ""); got != "" {
			t.Errorf("%s is marked: %s", p, got)
		}
	}
	for _, mode := range []string{"0600", "600", "0400", "0440", "0644"} {
		if got := danger("/x.key", mode, ""); got != "" {
			t.Errorf("mode %s is marked: %s", mode, got)
		}
	}
	for mode, want := range map[string]string{"0666": writableFile, "620": writableFile, "0602": writableFile, "0777": "the file is executable; " + writableFile} {
		if got := danger("/x.key", mode, ""); got != want {
			t.Errorf("mode %s: %s", mode, got)
		}
	}
	for p, want := range map[string]string{"/" + strings.Repeat("x/", 96) + "abc.key": "", "/" + strings.Repeat("x/", 96) + "abcd.key": longPath} {
		if got := danger(p, "0600", ""); got != want {
			t.Errorf("a path with %d bytes: %s", len(p), got)
		}
	}
	for _, mode := range []string{"0700", "755", "0601", "0610", "0111", "x"} {
		if got := danger("/x.key", mode, ""); got != "the file is executable" {
			t.Errorf("mode %s: %s", mode, got)
		}
	}
	if got, want := danger("~/.bashrc", "0755", ""), shellFile+"; the file is executable"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestTemplatesOfUnknownFiles checks that a template with more than the secret is marked as
// dangerous if the file is not known, even if the name of the file is usual for credentials.
// No table can contain all directories and files that a program obeys.
func TestTemplatesOfUnknownFiles(t *testing.T) {
	names := `~/certs/client.pem /srv/app/master.key /w/tls.crt /tmp/token /w/api.token /w/x.password /run/secrets/db /var/run/secrets/db /w/.htpasswd
		~/.config/x/token ~/.config/x/auth.json ~/.vault-token ~/.ssh/id_ed25519 ~/.cargo/credentials.d/x ~/.m2/settings-security.xml`
	for _, p := range strings.Fields(names + ` /w/group_vars/all/token /w/chart/templates/token /x/bash_completion.d/token
		/run/secrets/kubernetes.io/serviceaccount/ca.crt /var/lib/ca-certificates/ca-bundle.pem ~/.minikube/ca.crt
		/w/config/database.yml /w/app.conf ~/.unknown-tool /x /w/new-agent.md /w/tool.toml /srv/app/settings.ini ~/c /run/x/y /w/secrets/x /tmp/x.yaml`) {
		for _, template := range []string{"x: {{value}}\n", "x", "{{value}}.", "{{a}}{{b}}", "\n", "{{value}}\u00a0"} {
			if danger(p, "0600", template) == "" {
				t.Errorf("%s with the template %q is not marked", p, template)
			}
		}
	}
	for _, p := range strings.Fields(names + ` ~/.pgpass ~/.git-credentials ~/.config/git/credentials ~/.npmrc /w/.env ~/.gem/credentials`) {
		for _, template := range []string{"", "{{value}}", "{{value}}\n", "\n\t{{ value }} \n\n", "{{password}}\n"} {
			if got := danger(p, "0600", template); got != "" {
				t.Errorf("%s with the template %q is marked: %s", p, template, got)
			}
		}
	}
}

// TestTemplatesOfOrdinaryFiles checks the templates of known files for credentials. A
// template that contains only credentials must not be marked. A template that contains
// more must be marked.
func TestTemplatesOfOrdinaryFiles(t *testing.T) {
	for _, c := range []struct{ path, harmless, dangerous string }{
		{"~/.npmrc", "//registry.npmjs.org/:_authToken={{value}}", "script-shell=/tmp/x"},
		{"~/.npmrc", "@corp:registry=https://npm.pkg.github.com\n//npm.pkg.github.com/:_authToken={{value}}\n; comment\nalways-auth=true", "//registry.npmjs.org/:tokenHelper=/tmp/x"},
		{"~/.npmrc", "@corp:registry=http://127.0.0.1:4873/\n@a:registry = \"http://localhost\"\n@b:registry=http://[::1]:80/x\n//npm.corp.example/:_authToken={{value}}\n", "@corp:registry=http://npm.corp.example/"},
		{"~/.npmrc", "_auth={{value}}", "@corp:registry=http://localhost.evil.example/"}, {"~/.npmrc", "", "@corp:registry = \"HTTP://127.0.0.1@evil.example/\""},
		{"~/.npmrc", "@corp:registry=https://a.example{{value}}", "@corp:registry={{value}}"}, {"~/.npmrc", "", "@corp:registry=htt{{e}}p://x.example/"},
		{"~/.npmrc", "_auth = {{value}}\nemail=a@example.com\n\n", "node-options=--require /tmp/x"},
		{"~/.npmrc", "registry=https://registry.npmjs.org/\nregistry = \"https://registry.npmjs.org\"\n", "registry=https://npm.example/"},
		{"~/.npmrc", "", "REGISTRY = https://registry.npmjs.org{{e}}.evil.example/"}, {"~/.npmrc", "", "registry={{value}}"},
		{"~/.npmrc", "_auth={{value}}", "//h/:_authToken=${OTHER}"}, {"~/.npmrc", "", "//h/:_authToken=${{e}}{OTHER}{{value}}"},
		{"~/.npmrc", "", "\"node\\u002doptions\"=--require /tmp/x"},
		{"~/.npmrc", "#script-shell=x", "_authToken=x\rscript-shell=/tmp/x"},
		{"~/.npmrc", "//h/:_authToken={{a}}", "//h/:_authToken={{a}}\nscript{{empty}}-shell=x"},
		{"~/.npmrc", "//h/:_authToken=$X", "node-options"},
		{"~/.aws/credentials", "[default]\naws_access_key_id={{aws_access_key_id}}\naws_secret_access_key = {{k}}\n", "[default]\ncredential_process = /tmp/x"},
		{"~/.aws/config", "[profile x]\nregion = eu-west-1\n", "[profile x]\ncredential_process: /tmp/x"},
		{"~/.aws/credentials", "# c\n[x]\naws_session_token={{t}}", "[x]\naws_access_key_id=a\ns3 =\n  endpoint_url = http://evil\n"},
		{"~/.aws/credentials", "[a]\n[b]", "[a]\ncredential{{aws_session_token}}_process=x"},
		{"~/.aws/credentials", "[a]", "[a]\naws_access_key_id=a\u2028credential_process=x"},
		{"~/.aws/config", "[default]\nregion = eu-west-1\n[profile \"a.b\"]\noutput=json\n", "[plugins]\nregion = evil\n"},
		{"~/.aws/config", "[default]\n", "[plugins ]\nregion = evil\n"},
		{"~/.aws/config", "[profile x]\n", "[profile x] [plugins]\nregion = evil\n"},
		{"~/.aws/credentials", "[plugins]\naws_access_key_id=a\n", "[a][b]\n"},
		{"~/.pypirc", "[distutils]\nindex-servers =\n  pypi\n[pypi]\nusername = __token__\npassword = {{value}}\n", "[pypi]\nrepository = http://evil.example\n"},
		{"~/.my.cnf", "[client]\nuser=x\npassword={{value}}\n", "[client]\npager=/tmp/x\n"},
		{"~/.my.cnf", "[client]\n", "!include /tmp/x\n"},
		{"~/.cargo/credentials.toml", "[registry]\ntoken = \"{{value}}\"\n", "[registry]\ncredential-provider = [\"/tmp/x\"]\n"},
		{"~/.cargo/credentials.toml", "[registries.corp]\ntoken = \"{{value}}\"\n", "[patch.crates-io]\ntoken = { path = \"/tmp/x\" }\n"},
		{"~/.gradle/gradle.properties", "mavenUser=x\nmavenPassword={{value}}\nsigning.keyId=1\n", "org.gradle.java.home=/tmp/x\n"},
		{"~/.gradle/gradle.properties", "# org.gradle.x=y\n", "org.gradle.jvmargs -javaagent:x.jar=token\n"},
		{"~/.gradle/gradle.properties", "githubToken={{value}}\n", "\\u006frg.gradle.jvmargs.password=x\n"},
		{"~/.gradle/gradle.properties", "mavenPassword = {{value}}\n", "kotlin.daemon.jvmargs -Dtoken=1 -javaagent:/tmp/x.jar\n"},
		{"~/.gradle/gradle.properties", "mavenPassword {{value}}\n", "kotlin.daemon.jvmargs\t-Dtoken=1\n"},
		{"~/.netrc", "machine github.com login x password {{value}}\nmachine b\n  login y\n  password {{value}}\n", "machine a login b password c\nmacdef init\n! sh\n\n"},
		{"~/.netrc", "machine default.example login a password {{p}}\n", "default login {{u}} password {{p}}\n"},
		{"~/.netrc", "machine a login b account {{x}}\n", "machine a login b password {{e}} macdef init\n!sh\n\n"},
		{"~/.netrc", "machine a login b password {{p}}\n", "machine a login DEFAULT login {{u}} password {{p}}\n"},
		{"~/.netrc", "machine a\tlogin b\tpassword {{p}}\n", "machine a login \"default\" login {{u}} password {{p}}\n"},
		{"~/.netrc", "", "machine a login \"machine\" 127.0.0.1 login {{u}} password {{p}}\n"},
		{"~/.netrc", "", "machine a login 'default' login {{u}} password {{p}}\n"},
		{"~/.netrc", "", "machine a login d\\efault login {{u}} password {{p}}\n"},
		{"~/.netrc", "", "machine a login Mac{{e}}Def init\n!sh\n\n"},
		{"~/.npmrc", "", "//h/:_authToken=\"\\u0024{OTHER}{{value}}\"\n"},
		{"~/.yarnrc.yml", "", "npmAuthToken: \"\\x24{OTHER}{{value}}\"\n"},
		{"~/.yarnrc.yml", "# token\nnpmAuthToken: {{value}}\n", "# token\u2028npmAuthToken: |\n  yarnPath: /tmp/x\n  npmAuthToken: {{value}}\n"},
		{"~/.yarnrc.yml", "", "# token\u2029npmAuthToken: |\n  npmRegistryServer: https://evil.example\n  npmAuthToken: {{value}}\n"},
		{"~/.kube/config", "", "# c\u0085kind: |\n  users: [{user: {exec: {command: /tmp/x}}}]\n"},
		{"~/.docker/config.json", "", `{"auths": {}, "CREDSSTORE": "x"}`},
		{"~/.docker/config.json", "", `{"auths": {}, "auths": {"ghcr.io": {}}, "cred\u017fStore": "x"}`},
		{"~/.gradle/gradle.properties", "a.token={{value}}\n", "a.token={{value}}\\\norg.gradle.jvmargs=x\n"},
		{"~/.gradle/gradle.properties", "", "org.gradle.\\\njvmargs.token=x\n"},
		{"~/.gradle/gradle.properties", "", "kotlin.daemon.jvmargs\f-Dtoken=1\n"},
		{"~/.gradle/gradle.properties", "a.password: {{value}}\n", "org.gradle.java.home: /tmp/x.token\n"},
		{"~/.aws/credentials", "", "[default]\n  CREDENTIAL_PROCESS  =  /tmp/x\n"},
		{"~/.aws/credentials", "", "[default]\ncredential_process\t:/tmp/x\n"},
		{"~/.pypirc", "", "[pypi]\nusername=x\n  Repository : http://evil.example\n"},
		{"~/.my.cnf", "", "[client]\n  PAG\t=/tmp/x\n"}, {"~/.cargo/credentials.toml", "", "[registry]\n\"credential-\\u0070rovider\" = [\"/tmp/x\"]\n"},
		{"~/.git-credentials", "", "https://u:{{value}}@h.example\rx\n"}, {"~/.pgpass", "", "a:1:b:c:{{value}}\u2028x\n"},
		{"~/.docker/config.json", `{"auths": {"ghcr.io": {"auth": "{{value}}"}, "https://index.docker.io/v1/": {"username": "x", "password": "{{p}}"}}}`, `{"auths": {}, "credsStore": "x"}`},
		{"~/.docker/config.json", `{"auths": {"localhost:5000": {"auth": {{value}}}}}`, `{"auths": {}, "credsStor\u0065": "x"}`},
		{"~/.docker/config.json", `{}`, `{"CREDHELPERS": {"ghcr.io": "x"}}`},
		{"~/.docker/config.json", `{"auths":{}}`, `{"auths":{}, not json`},
		{"~/.docker/config.json", `{"auths":{}}`, `{"cliPluginsExtraDirs":["/tmp"]}`},
		{"~/.kube/config", "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: \"https://a\", certificate-authority-data: x}}]\nusers: [{name: a, user: {token: \"{{value}}\"}}]\ncontexts: [{name: a, context: {cluster: a, user: a, namespace: b}}]\ncurrent-context: a\n", "users: [{name: a, user: {exec: {command: /tmp/x}}}]\n"},
		{"~/.kube/config", "kind: Config\n", "users: [{name: a, user: {\"ex\\x65c\": {command: /tmp/x}}}]\n"},
		{"~/.kube/config", "kind: Config\n", "kind: Config\n---\nusers: [{user: {auth-provider: {}}}]\n"},
		{"~/.kube/config", "kind: Config\n", "clusters: [{cluster: {insecure-skip-tls-verify: true}}]\n"},
		{"~/.kube/config", "kind: Config\n", "users: [{user: {? {a: b} : c}}]\n"},
		{"~/.kube/config", "kind: Config\n", "kind: &token insecure-skip-tls-verify\nclusters: [{cluster: {*token : true}}]\n"},
		{"~/.kube/config", "---\nkind: Config\n", "kind: Config\n--- exec\n"},
		{"~/.kube/config", "kind: Config\n", "users: [{user: {!!binary ZXhlYw==: {command: /tmp/x}}}]\n"},
		{"/w/kubeconfig", "kind: Config\n", "users: [{user: {exec: x}}]\n"},
		{"/w/dev.kubeconfig", "kind: Config\n", "users: [{user: {exec: x}}]\n"},
		{"~/.kube/config", "users: [&name {user: {token: x}}, *name]\n", "users: [&name {user: {exec: x}}, *name]\n"},
		{"~/.config/gh/hosts.yml", "github.com:\n  user: me\n  oauth_token: {{value}}\n  git_protocol: https\n", "github.com:\n  browser: /tmp/x\n"},
		{"~/.config/gh/hosts.yml", "github.com: {users: {me: {oauth_token: x}}}\n", "github.com: {\"edi{{e}}tor\": x}\n"},
		{"~/.yarnrc.yml", "npmAuthToken: \"{{value}}\"\nnpmScopes: {\"@x\": {npmRegistryServer: \"https://a\"}}\n", "yarnPath: /tmp/x\n"},
		{"~/.yarnrc.yml", "# the registry\nnpmAuthToken: x\n", "# yarn lockfile v1\nyarnPath \"/tmp/x\"\n"},
		{"~/.yarnrc.yml", "npmAuthToken: x\n", "#  YARN\tlockfile v1\nnpmAuthToken: 'x\nyarnPath \"/tmp/x\"\n'\n"},
		{"~/.yarnrc.yml", "npmAuthToken: x\n", "yarnPath\n"},
		{"~/.yarnrc.yml", "npmRegistryServer: https://registry.yarnpkg.com\nnpmAuthToken: {{value}}\n", "npmRegistryServer: https://evil.example\nnpmAuthToken: {{value}}\n"},
		{"~/.yarnrc.yml", "npmRegistryServer: \"https://registry.npmjs.org/\"\n", "npmRegistryServer: https://registry.npmjs.org{{e}}.evil.example\n"},
		{"~/.yarnrc.yml", "npmRegistries: {\"https://a\": {npmAuthToken: x}}\n", "npmRegistries: {\"//x\": &a \"https://evil.example\"}\nnpmRegistryServer: *a\n"},
		{"~/.yarnrc.yml", "# c\n", "\"npmRegistry\\x53erver\": https://evil.example\n"}, {"~/.yarnrc.yml", "", "npmRegistryServer: {{value}}\n"},
		{"~/.gemini/oauth_creds.json", `{"access_token": "{{access_token}}", "refresh_token": "{{r}}", "id_token": "x", "scope": "a b", "token_type": "Bearer", "expiry_date": 1}`, `{"type": "external_account", "credential_source": {"executable": {"command": "/tmp/x"}}}`},
		{"~/.yarnrc.yml", "npmAuthToken: $x\n", "npmAuthToken: \"${OTHER}{{value}}\"\n"},
		{"~/.yarnrc.yml", "npmAuthToken: x\n", "# yarn lock{{e}}file v1\nnpmAuthToken: 'x\nyarnPath \"/tmp/x\"\n'\n"},
		{"~/.config/containers/auth.json", `{"auths": {"ghcr.io": {"auth": "{{value}}"}}}`, `{"credHelpers": {"ghcr.io": "x"}}`},
		{"/run/user/1000/containers/auth.json", `{"auths": {}}`, `{"credHelpers": {"ghcr.io": "x"}}`},
		{"~/.config/composer/auth.json", `{"http-basic": {"a.example": {"username": "x", "password": "{{value}}"}}, "github-oauth": {"github.com": "{{t}}"}}`, `{"disable-tls": true}`},
		{"~/.composer/auth.json", `{"bearer": {"a.example": "{{value}}"}}`, `{"vendor-dir": "/tmp/x"}`},
		{"~/.terraform.d/credentials.tfrc.json", `{"credentials": {"app.terraform.io": {"token": "{{value}}"}}}`, `{"provider_installation": [{"dev_overrides": [{"hashicorp/aws": "/tmp/x"}]}]}`},
		{"~/.config/gcloud/application_default_credentials.json", `{"type": "authorized_user", "client_id": "{{id}}", "client_secret": "{{secret}}", "refresh_token": "{{token}}", "quota_project_id": "p"}`, `{"type": "external_account", "credential_source": {"executable": {"command": "/tmp/x"}}}`},
		{"/w/my-service-account.json", `{"type": "service_account", "project_id": "p", "private_key_id": "i", "private_key": "{{key}}", "client_email": "a@b", "client_id": "1", "auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": "https://oauth2.googleapis.com/token", "auth_provider_x509_cert_url": "https://c", "client_x509_cert_url": "https://d", "universe_domain": "googleapis.com"}`, `{"type": "external_account", "token_url": "http://evil"}`},
		{"/w/google-credentials.json", "{{value}}\n", `{"credential_source": {"file": "/x"}}`},
		{"/w/client_secret_1.json", `{"installed": {"client_id": "1", "project_id": "p", "client_secret": "{{value}}", "redirect_uris": ["http://localhost"]}}`, `{"command": "x"}`},
		{"~/.config/sops/age/keys.txt", "# created: x\n{{value}}\nAGE-SECRET-KEY-1{{rest}}\n", "AGE-PLUGIN-X-1QQ\n"},
		{"~/.config/git/credentials", "https://u:{{value}}@h.example\n", "x https://u:{{value}}@h.example\n"},
		{"~/.git-credentials", "https://u%40:{{value}}@h.example:8443/a\nhttp://localhost\n", "https://u:{{value}}@h.example;id\n"}, {"~/.git-credentials", "", "$(id)\n"},
		{"~/.git-credentials", "http://u:{{value}}@127.0.0.1:8080/a\nhttp://{{u}}:{{p}}@[::1]\n", "http://u:{{value}}@evil.example\n"}, {"~/.git-credentials", "", "HTTP://{{value}}@evil\n"},
		{"~/.git-credentials", "http://u:{{value}}@localhost\n", "http://localhost:{{value}}@evil.example\n"}, {"~/.git-credentials", "", "http://u:{{value}}@localhost.evil.example\n"},
		{"~/.docker/config.json", `{"auths":{"http://localhost:5000/v2":{}, "https://a.example/v1/":{}}}`, `{"auths":{"http://evil.example":{"auth":"{{value}}"}}}`},
		{"~/.gem/credentials", "http://127.0.0.1:9292: {{value}}\n", "http://evil.example: {{value}}\n"},
		{"~/.kube/config", "clusters: [{cluster: {server: \"http://localhost:8080\"}}, {cluster: {server: \"{{server}}\"}}, {cluster: {server: \"https://{{host}}:6443\"}}]\n", "clusters: [{cluster: {server: \"http://evil.example\"}}]\n"},
		{"~/.kube/config", "", "clusters: [{cluster: {Server: evil.example}}]\n"}, {"~/.kube/config", "", "clusters: [{name: &a \"http://evil\", cluster: {server: *a }}]\n"},
		{"~/.kube/config", "", "kind: Config\n---\nclusters: [{cluster: {server: \"{{a}}http://evil\"}}]\n"}, {"~/.kube/config", "", "clusters: [{cluster: {server: [\"http://evil\"]}}]\n"},
		{"~/.pgpass", "# db\ndb.example:5432:*:app:{{value}}\nh:*:*:*:x\n", "anything\n{{value}}"}, {"~/.pgpass", "", "*:*:*:*:{{value}}\n"}, {"~/.pgpass", "", "{{a}}*:*:*:*:{{value}}\n"}, {"~/.pgpass", "{{host}}:{{port}}:db:u:{{p}}\n", "a:1:`id`:b:c\n"},
		{"~/.pgpass", "h:1:db:u:{{value}}\n", "h:1:db:u:{{value}}id\n"},
		{"~/.gem/credentials", "---\n:rubygems_api_key: {{value}}\nhttps://gems.example: x\n", "--- !ruby/object:Gem::Installer\n:rubygems_api_key: x\n"}, {"~/.gem/credentials", "", ":update_sources: x\n"},
		{"~/.sbt/.credentials", "realm=a b\nhost=h\nuser=u\npassword={{value}}\n", "plugin=x\n"},
		{"~/.claude/.credentials.json", `{"claudeAiOauth": {"accessToken": "{{a}}", "refreshToken": "{{r}}", "expiresAt": 1, "scopes": ["x"], "subscriptionType": "max"}}`, `{"apiKeyHelper": "/tmp/x"}`},
		{"~/.codex/auth.json", `{"OPENAI_API_KEY": "{{value}}", "tokens": {"id_token": "x", "access_token": "x", "refresh_token": "x", "account_id": "x"}, "last_refresh": "x"}`, `{"notify": ["/tmp/x"]}`},
		{"~/.config/tool/credentials", "", "command = /tmp/x"},
		{"~/.config/tool/credentials.json", "", "{\"command\": \"/tmp/x\"}"},
		{"~/.m2/settings.xml", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<settings xmlns=\"http://maven.apache.org/SETTINGS/1.0.0\">\n<servers><server><id>a</id><username>b</username><password>{{value}}</password></server></servers></settings>\n", "<settings><mirrors><mirror/></mirrors></settings>"},
		{"~/.m2/settings.xml", "<?xml version='1.0'?><settings/>", "<?xml version=\"1.0\" encoding=\"UTF-7\"?><settings>+ADw-mirrors/+AD4-</settings>"},
		{"~/.m2/settings.xml", "", "<settings><servers><server><password>${env.OTHER}{{value}}</password></server></servers></settings>"},
		{"~/.m2/settings.xml", "", "<settings><servers><server><password>&#36;{env.OTHER}{{value}}</password></server></servers></settings>"},
		{"~/.m2/settings.xml", "<settings/>", "<!DOCTYPE x [<!ENTITY e \"x\">]><settings/>"},
	} {
		if got := danger(c.path, "0600", c.harmless); got != "" {
			t.Errorf("%s is marked (%s) with\n%s", c.path, got, c.harmless)
		}
		if got := danger(c.path, "0600", c.dangerous); got == "" && c.dangerous != "" {
			t.Errorf("%s is not marked with\n%s", c.path, c.dangerous)
		}
	}
	// A value can end in a line break. The text after the placeholder is then a new line, so
	// these templates must be marked.
	for _, c := range []struct{ path, template string }{
		{"~/.npmrc", "//h/:_authToken={{value}}script-shell=/tmp/x\n"},
		{"~/.npmrc", "; {{value}}script-shell=/tmp/x\n"},
		{"~/.yarnrc.yml", "# {{value}}npmRegistryServer: https://evil.example\n"},
		{"~/.npmrc", "//h/:_authToken={{value}}registry=https://evil.example/\n"},
		{"~/.aws/config", "[default]\nregion={{value}}credential_process=/tmp/x\n"},
		{"~/.config/gh/hosts.yml", "# {{value}}editor: /tmp/x\n"},
		{"~/.netrc", "machine a login b password x{{n}}macdef{{n}}init{{n}}!sh{{n}}{{n}}\n"},
		{"~/.config/gh/hosts.yml", "github.com: {user: x, # {{a}}? \"bro{{e}}wser\" : /tmp/x\n}\n"},
		{"~/.gradle/gradle.properties", "a.token={{value}}org.gradle.java.home=/tmp/x\n"},
	} {
		if danger(c.path, "0600", c.template) == "" {
			t.Errorf("%s is not marked with\n%s", c.path, c.template)
		}
	}
	for _, c := range []struct{ path, template string }{
		{"~/.npmrc", "//h/:_password=\"{{value}}\"\n"},
		{"~/.netrc", "machine {{host}} login {{username}} password {{password}}\n"},
		{"~/.docker/config.json", "{\"auths\": {\"h.example\": {\"username\": \"{{username}}\", \"password\": \"{{password}}\"}}}\n"},
	} {
		if got := danger(c.path, "0600", c.template); got != "" {
			t.Errorf("%s is marked (%s) with\n%s", c.path, got, c.template)
		}
	}
}

// TestUnusualCharactersInTemplates checks that the template of a known file is marked if it
// contains a control character or a character that is not ASCII, even in a comment. Programs do not
// agree on which of these characters are white space or line breaks.
func TestUnusualCharactersInTemplates(t *testing.T) {
	for path, template := range map[string]string{
		"~/.npmrc": "# c\n_auth={{value}}\n", "~/.aws/credentials": "# c\n[a]\n", "~/.my.cnf": "# c\n[client]\n", "~/.cargo/credentials.toml": "# c\n[registry]\n",
		"~/.gradle/gradle.properties": "# c\na.token={{value}}\n", "~/.kube/config": "# c\nkind: Config\n", "~/.yarnrc.yml": "# c\nnpmAuthToken: x\n",
		"~/.pgpass": "# c\n", "~/.git-credentials": "# c\n", "~/.config/sops/age/keys.txt": "# c\n", "/w/.env": "# c\nA={{value}}\n", "~/.gem/credentials": "# c\nhttps://a: x\n",
	} {
		if got := danger(path, "0600", template); got != "" {
			t.Errorf("%s is marked (%s) with\n%s", path, got, template)
		}
		for _, c := range []string{"\r", "\f", "\v", "\x00", "\x1b", "\x1c", "\x7f", "\u0085", "\u00a0", "\u00e9", "\u2028", "\u2029", "\ufeff", "\xff"} {
			for _, changed := range []string{strings.Replace(template, "c", "c"+c, 1), c + template, template + c} {
				if got := danger(path, "0600", changed); got != unusualText {
					t.Errorf("with %q in %s, the danger is %q", changed, path, got)
				}
			}
		}
	}
}

// TestTemplatesOfFilesOfVariables checks that the template of a file such as .env is marked
// unless it only sets variables to the secret. A shell can read such a file, so any other line
// could run a command. No table can contain all variables that run a command, so a value with
// other text must be marked, too.
func TestTemplatesOfFilesOfVariables(t *testing.T) {
	for _, p := range []string{"/w/.env", "/w/.env.local", "/w/prod.env"} {
		for _, template := range []string{
			"A={{value}}", "A={{value}}\nB='{{b}}'\nexport C=\"{{c}}\"\n", "\n# the credentials, of (one) \"tool\"; a & b\n\n  export\tA_1={{ value }} \n", "CC_TEST_REPORTER_ID={{value}}",
		} {
			if got := danger(p, "0600", template); got != "" {
				t.Errorf("%s is marked (%s) with\n%s", p, got, template)
			}
		}
	}
	const lines, values = "the template contains more than variables: a shell that reads the file may run the other lines", "the template sets dangerous variables, or adds text to the values of variables: "
	for template, want := range map[string]string{
		"GIT_TEST_FSMONITOR='touch /tmp/x;'\n":           values + "GIT_TEST_FSMONITOR",
		"A={{value}}\nB=x\nC=\n":                         values + "B, C",
		"NODE_OPTIONS={{value}}\n":                       values + "NODE_OPTIONS",
		"A=postgres://u:{{value}}@h/db\n":                values + "A",
		"A={{value}}NODE_OPTIONS=x\n":                    values + "A",
		"A={{a}}{{b}}\n":                                 values + "A",
		"A='{{value}}\nNODE_OPTIONS=x'\n":                values + "NODE_OPTIONS, A",
		"A='{{value}}\"\n":                               values + "A",
		"A={{value}}\rB={{value}}\n":                     unusualText,
		"A={{value}}\r\n":                                unusualText,
		"A={{value}}\n\r#;id\n":                          unusualText,
		"A={{value}}\n\f#;id\n":                          unusualText,
		"A={{value}}\n#\x1b[2J\n":                        unusualText,
		"A={{value}}\u2028B={{value}}\n":                 unusualText,
		"A={{value}} #x\n":                               values + "A",
		"A=1\nB=1\nC=1\nD=1\nE=1\nF=1\n":                 values + "A, B, C, D, and 2 more",
		"A=1\nB=1\nC=1\nD=1\nE=1\nGIT_PAGER={{value}}\n": values + "GIT_PAGER, A, B, C, and 2 more",
		"A=1\nA=2\n":                                     values + "A, A",
		strings.Repeat("A", 60) + "=1\n":                 values + strings.Repeat("A", 40) + "...",
		"NODE{{e}}_OPTIONS=x\n":                          lines,
		"id\n":                                           lines,
		"A.b={{value}}\n":                                lines,
		"A ={{value}}\n":                                 lines,
		"export A\n":                                     lines,
		"B=x\n{{value}}\n":                               lines,
		"# {{value}}id\n":                                lines,
		"# $(id)\n":                                      lines,
		"# `id`\n":                                       lines,
		"# NODE_OPTIONS=x\n":                             lines, // export $(xargs <.env) would set this variable
		"# x\rid\n":                                      unusualText,
		"# x\u0085id\n":                                  unusualText,
		"# x\\\n":                                        lines,
		"-":                                              lines,
	} {
		if got := danger("/w/.env", "0600", template); got != want {
			t.Errorf("with\n%s\nthe danger is %s, want %s", template, got, want)
		}
	}
}

func TestTablesOfFiles(t *testing.T) {
	all := slices.Clone(variableFiles)
	for _, rules := range [][]fileRule{systemFiles, toolFiles} {
		for _, rule := range rules {
			if !slices.IsSorted(rule.patterns) {
				t.Errorf("the patterns for %q are not sorted", rule.reason)
			}
			if !isPrintableASCII(rule.reason) || rule.reason == "" {
				t.Errorf("reason %q", rule.reason)
			}
			all = append(all, rule.patterns...)
		}
	}
	for _, file := range ordinaryFiles {
		all = append(all, file.patterns...)
	}
	slices.Sort(all)
	for i, pattern := range all {
		if pattern != strings.ToLower(pattern) || i > 0 && all[i-1] == pattern {
			t.Errorf("%s is not in lower case, or is a duplicate", pattern)
		}
		for i, element := range strings.Split(pattern, "/") {
			last := i == strings.Count(pattern, "/")
			if _, err := path.Match(element, ""); err != nil || element == "**" && !last || element == "" && i > 0 || strings.HasPrefix(element, "~") {
				t.Errorf("%s is an invalid pattern: %v", pattern, err)
			}
		}
	}
}
