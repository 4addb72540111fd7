package manifest

import "testing"

// TestTextThatToolsReadDifferently checks templates of known files for credentials. A tool can
// read another key, another value, or another server in such a template than a simple check
// does. So each template must be marked as dangerous.
func TestTextThatToolsReadDifferently(t *testing.T) {
	for _, c := range []struct{ path, template string }{
		// npm and pnpm end a key at # or ;, and read a key in quotes as JSON.
		{"~/.npmrc", "//registry.npmjs.org/:tokenHelper#:_authToken=/tmp/x\n"},
		{"~/.npmrc", "//registry.npmjs.org/:tokenHelper;:_authToken=/tmp/x\n"},
		{"~/.npmrc", "//registry.npmjs.org/:tokenHelper :_authToken=/tmp/x\n"},
		{"~/.npmrc", "//h/:tokenHelper:_authToken=/tmp/x\n"},
		{"~/.npmrc", "//h/:tokenHelper[]:_authToken=/tmp/x\n"},
		{"~/.npmrc", "//h/\":tokenHelper\":_authToken=/tmp/x\n"},
		{"~/.npmrc", "@registry#:registry=https://evil.example\n"},
		{"~/.npmrc", "@script-shell;:registry=/tmp/x\n"},
		{"~/.npmrc", "@a b:registry=https://evil.example\n"},
		{"~/.npmrc", "@\"a\":registry=https://evil.example\n"},
		{"~/.npmrc", "registry#=https://evil.example\n"},
		{"~/.npmrc", "registry[]=https://evil.example\n"},
		{"~/.npmrc", "[__proto__]\n_authToken=x\n"},
		{"~/.npmrc", "[a.b]\n_authToken=x\n"},
		{"~/.npmrc", "//h/:_authToken{{e}}=x\n//{{h}}:_authToken=x\n//h/:tokenHelper{{e}}:_authToken=/tmp/x\n"},
		// aws makes the region a part of the names of servers.
		{"~/.aws/config", "[default]\nregion = x@evil.example/\n"},
		{"~/.aws/config", "[default]\nregion = evil.example#\n"},
		{"~/.aws/config", "[default]\nregion: eu-west-1.evil.example\n"},
		{"~/.aws/config", "[profile x#]\nregion = eu-west-1\n"},
		{"~/.aws/credentials", "[x # [plugins]\naws_access_key_id = a\n"},
		{"~/.aws/credentials", "[x;y]\naws_access_key_id = a\n"},
		{"~/.aws/credentials", "[default]\naws_access_key_id#credential_process = /tmp/x\n"},
		{"~/.aws/credentials", "[default]\n\"credential_process\" = /tmp/x\n"},
		{"~/.pypirc", "[pypi;x]\npassword = x\n"},
		{"~/.pypirc", "[pypi]\npassword = x\nusername#repository = x\n"},
		// mysqld runs as the user that the section mysqld names.
		{"~/.my.cnf", "[mysqld]\nuser=root\n"},
		{"~/.my.cnf", "[client]\npager#password=/tmp/x\n"},
		{"~/.cargo/credentials.toml", "[registries.x.credential-provider]\ntoken = \"x\"\n"},
		{"~/.cargo/credentials.toml", "[registries.'x'y\"]\ntoken = \"x\"\n"},
		{"~/.cargo/credentials.toml", "[registry]\ntoken.x = 1\n"},
		{"~/.cargo/credentials.toml", "[registry]\ntoken = { a = 1 }\n"},
		{"~/.gradle/gradle.properties", "!org.gradle.token=x\n"},
		{"~/.gradle/gradle.properties", "a#b.token=x\n"},
		{"~/.gradle/gradle.properties", "a;b.token=x\n"},
		{"~/.gradle/gradle.properties", "\"a\".token=x\n"},
		{"~/.gradle/gradle.properties", "a.token=x\\\n"},
		{"~/.sbt/.credentials", "host=h\\\n"},
		// Some programs read # as the start of a comment.
		{"~/.netrc", "machine h login #\npassword default\nlogin u password {{p}}\n"},
		{"~/.netrc", "machine h login a#b password {{p}}\n"},
		{"~/.netrc", "machine h login $USER password {{p}}\n"},
		{"~/.netrc", "machine evil[.]example login x password {{p}}\n"},
		// These keys look like hosts, but are not hosts.
		{"~/.yarnrc.yml", "{plugins:}\n"},
		{"~/.yarnrc.yml", "\"plugins:\": []\n"},
		{"~/.yarnrc.yml", "\"a.b c\": x\n"},
		{"~/.yarnrc.yml", "\"plugins.\": x\n"},
		{"~/.yarnrc.yml", "\"@plugins#\": x\n"},
		{"~/.docker/config.json", "{// x\n\"credsStore\": \"x\"}"},
		{"~/.docker/config.json", `{"/*": "x", "credsStore.": "x"}`},
		{"~/.docker/config.json", `{"auths": {"evil\u002eexample": {}}}`},
		{"~/.config/composer/auth.json", `{"http-basic": {"a.example # b": {}}}`},
		{"~/.terraform.d/credentials.tfrc.json", `{"credentials": {"a.example": {}}, "plugin_cache_dir:": "/tmp/x"}`},
		{"~/.gem/credentials", "https://a b: x\n"},
		{"~/.config/gh/hosts.yml", "github.com: {\"editor#\": x}\n"},
		{"~/.config/gh/hosts.yml", "github.com: {prompt: x}\n"},
		{"~/.config/gh/hosts.yml", "github.com: {api_endpoint: x}\n"},
		{"~/.config/gh/hosts.yml", "github.com: {user: me, browser: x}\n"},
		{"~/.config/gh/hosts.yml", "github.com: {oauth_token: {editor: x}}\n"},
		{"~/.config/gh/hosts.yml", "editor: x\n"},
		{"~/.config/sops/age/keys.txt", "AGE-SECRET-KEY-1 AGE-PLUGIN-X-1\n"},
		{"~/.config/sops/age/keys.txt", "[x]\n"},
		// Some versions of git decode %0a to a line break, after which the name can contain
		// another host.
		{"~/.git-credentials", "https://u%0ahost=github.com:{{value}}@h.example\n"},
		{"~/.git-credentials", "https://u:{{value}}%0D%00@h.example\n"},
		// Google's tools send the credential to the server in these keys, even if it is another
		// server than Google's.
		{"~/.config/gcloud/application_default_credentials.json", `{"type": "authorized_user", "refresh_token": "{{t}}", "token_uri": "https://evil.example"}`},
		{"/w/my-service-account.json", `{"private_key": "{{key}}", "token_uri": "https://oauth2.googleapis.com.evil.example/token"}`},
		{"/w/my-service-account.json", `{"private_key": "{{key}}", "token_uri": "https://oauth2.googleapis.com/token{{e}}"}`},
		{"/w/my-service-account.json", `{"private_key": "{{key}}", "token_uri": "{{u}}"}`},
		{"/w/my-service-account.json", `{"private_key": "{{key}}", "token_uri": ["https://evil.example"]}`},
		{"/w/my-service-account.json", `{"private_key": "{{key}}", "Token_URI": "https://evil.example"}`},
		{"/w/my-service-account.json", `{"private_key": "{{key}}", "token_uri": "https://oauth2.googleapis.com/token", "token_uri": "https://evil.example"}`},
		{"/w/my-service-account.json", `{"private_key": "{{key}}", "universe_domain": "evil.example"}`},
		{"/w/client_secret.json", `{"installed": {"auth_uri": "https://evil.example", "client_secret": "{{s}}"}}`},
		{"~/.yarnrc.yml", "npmRegistryServer: https://registry.npmjs.org{{e}}\n"},
	} {
		if danger(c.path, "0600", c.template) == "" {
			t.Errorf("%s is not marked with\n%s", c.path, c.template)
		}
	}
}

// TestUsualTemplatesAreNotMarked checks templates that many projects use. None of them may be
// marked as dangerous.
func TestUsualTemplatesAreNotMarked(t *testing.T) {
	for _, c := range []struct{ path, template string }{
		{"~/.npmrc", "# the registry of the company\n@my-corp:registry=https://npm.corp.example:8443/npm/\n//npm.corp.example:8443/npm/:_authToken={{value}}\n//npm.corp.example:8443/npm/:always-auth=true\n"},
		{"~/.npmrc", "//gitlab.example/api/v4/projects/1/packages/npm/:_authToken={{value}}\n//pkgs.dev.azure.com/a_b/_packaging/c~d/npm/registry/:username=x\n//h:_authToken={{value}}\n//h/:email=a@example.com\n"},
		{"~/.aws/config", "[default]\nregion = eu-west-1\n[profile dev-1]\nregion={{region}}\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = default\n"},
		{"~/.aws/credentials", "[my.profile/a@b]\naws_access_key_id = {{id}}\n"},
		{"~/.my.cnf", "[client]\nuser=x\n[mysql]\ndatabase = app\n[client-mariadb]\nport=1\n"},
		{"~/.cargo/credentials.toml", "[registries.\"my-corp\"]\ntoken = \"{{value}}\"\n[registries.a_b]\ntoken = 'Bearer {{value}}'\n"},
		{"~/.gradle/gradle.properties", "signing.keyId=1\nmy_corp-Password: {{value}}\n"},
		{"~/.netrc", "machine api.heroku.com\n  login a+b@example.com\n  password {{value}}\n"},
		{"~/.netrc", "machine h.example:8443 login x-access-token password {{value}}\n"},
		{"~/.yarnrc.yml", "npmRegistries:\n  \"//npm.pkg.github.com\":\n    npmAuthToken: \"{{value}}\"\n  https://npm.corp.example:8443/a/b/:\n    npmAuthIdent: x\n"},
		{"~/.docker/config.json", "{\"auths\": {\"https://index.docker.io/v1/\": {}, \"1.dkr.ecr.eu-west-1.amazonaws.com\": {}, \"[::1]:5000\": {}, \"localhost:5000\": {}, \"localhost\": {}, \"ghcr.io/owner\": {}}}"},
		{"~/.config/gh/hosts.yml", "github.com:\n    users:\n        my-Name_1:\n            oauth_token: {{value}}\n    git_protocol: https\n    oauth_token: {{value}}\n    user: my-Name_1\n"},
		{"~/.git-credentials", "https://u%40b:{{value}}@h.example\n"},
		{"/w/my-service-account.json", `{"type": "service_account", "private_key": "{{key}}", "auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": "https://oauth2.googleapis.com/token", "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs", "universe_domain": "googleapis.com"}`},
		{"~/.gem/credentials", "---\n:rubygems_api_key: {{value}}\nhttps://rubygems.pkg.github.com/owner: {{value}}\n"},
		{"~/.config/sops/age/keys.txt", "# public key: age1x\nAGE-SECRET-KEY-1{{rest}}\nAGE-SECRET-KEY-PQ-1ABC\n"},
	} {
		if got := danger(c.path, "0600", c.template); got != "" {
			t.Errorf("%s is marked (%s) with\n%s", c.path, got, c.template)
		}
	}
}
