package manifest

import (
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

func TestForbiddenVariables(t *testing.T) {
	for _, name := range []string{
		"LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "LD_X", "DYLD_INSERT_LIBRARIES", "GLIBC_TUNABLES", "GCONV_PATH", "BASH_ENV", "ENV", "BASH_FUNC_x",
		"SHELLOPTS", "BASHOPTS", "PROMPT_COMMAND", "PROMPT4", "PS4", "IFS", "PATH", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PERL5OPT", "PERL5LIB", "PERL5DB",
		"RUBYOPT", "RUBYLIB", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "DOTNET_STARTUP_HOOKS", "LUA_INIT", "LUA_INIT_5_4",
		"ZDOTDIR", "KEYHATCH_SOCKET", "KEYHATCH_", "HOME", "FPATH", "NODE_PATH", "CLASSPATH", "BUN_OPTIONS", "PHPRC", "ERL_AFLAGS", "ERL_OTP27_FLAGS", "PSModulePath",
		"LD_KEY", "LD_SDK_KEY_X", "LD_BIND_NOW", "LD_ORIGIN_PATH", "LD_DEBUG_OUTPUT", "LD_PROFILE_OUTPUT",
		"LD_" + strings.Repeat("X", 3000),
	} {
		for _, secrets := range []string{"A: {env: " + name + "}", "A: {as: env, env: " + name + "}", name + ":", name + ": {as: env}"} {
			if len(name) > 100 && strings.HasPrefix(secrets, "LD_") {
				continue // too long for the name of a secret
			}
			_, err := Parse([]byte(header + "secrets:\n  " + secrets + "\n"))
			if err == nil || !strings.HasPrefix(err.Error(), "manifest line 4: ") || !strings.Contains(err.Error(), "can never be set, because ") ||
				!strings.HasSuffix(err.Error(), ": use another variable with env:, or as: file") || len(err.Error()) > 400 {
				t.Errorf("%s: %v", secrets, err)
			}
		}
		// None of these secrets sets the forbidden variable, so the manifest must be valid.
		if len(name) < 100 {
			if _, err := Parse([]byte(header + "secrets:\n  " + name + ": {as: file, path: /x}\n  " + "X" + name + ":\n  B: {env: " + name + "_}\nhelpers: {aws: " + name + "}\n")); err != nil && !isForbidden(name+"_") {
				t.Errorf("%s is refused for a secret that sets another variable: %v", name, err)
			}
		}
	}
	_, err := Parse([]byte(header + "secrets:\n  A: {env: LD_PRELOAD}\n"))
	const want = "manifest line 4: A: the variable LD_PRELOAD can never be set, because the loader loads code from the place that LD_PRELOAD names: use another variable with env:, or as: file"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	for _, name := range []string{"ENVIRONMENT", "MY_PATH", "XLD_PRELOAD", "LDAP_PASSWORD", "LD", "DYLD", "HOMEPAGE", "ENV_FILE_KEY", "BASH_FUNC", "KEYHATCHX", "_LD_PRELOAD", "PS", "PS1_KEY", "ld_preload", "path", "LD_SDK_KEY", "LD_MOBILE_KEY", "LD_API_KEY", "LD_ACCESS_TOKEN"} {
		if isForbidden(name) {
			t.Errorf("%s is forbidden", name)
		}
		parse(t, "secrets: {A: {env: "+name+"}}\n")
	}
}

func isForbidden(name string) bool {
	_, forbidden := findForbidden(name)
	return forbidden
}

func TestDangerousVariables(t *testing.T) {
	for _, name := range strings.Fields(`
		GIT_SSH_COMMAND GIT_SSH GIT_ASKPASS GIT_EDITOR GIT_PAGER GIT_EXTERNAL_DIFF GIT_CONFIG_GLOBAL GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_PARAMETERS
		GIT_EXEC_PATH GIT_SSL_NO_VERIFY GIT_SSL_CAINFO GIT_PROXY_COMMAND GIT_TEMPLATE_DIR GIT_DIR SSH_ASKPASS SSH_AUTH_SOCK SUDO_ASKPASS
		EDITOR VISUAL PAGER BROWSER LESSOPEN LESSCLOSE LESS MANPAGER SHELL MAKEFLAGS CC CXX RUSTC_WRAPPER RUSTC CARGO_BUILD_RUSTC CARGO_TARGET_WASM32_WASI_RUNNER
		GOFLAGS GOPROXY GOTOOLCHAIN GOCACHEPROG CFLAGS TAR_OPTIONS RSYNC_RSH VIMINIT INPUTRC MAVEN_OPTS GRADLE_OPTS SBT_OPTS KAFKA_OPTS JAVA_HOME
		HTTP_PROXY http_proxy Https_Proxy ALL_PROXY all_proxy NO_PROXY no_proxy SOCKS_PROXY SSL_CERT_FILE SSL_CERT_DIR NODE_EXTRA_CA_CERTS NODE_TLS_REJECT_UNAUTHORIZED
		REQUESTS_CA_BUNDLE CURL_CA_BUNDLE AWS_CA_BUNDLE AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_CONFIG_FILE AWS_PAGER PGSSLMODE SSLKEYLOGFILE OPENSSL_CONF
		npm_config_registry NPM_CONFIG_REGISTRY npm_config_script_shell Npm_Config_Node_Options npm_config__auth_helper pnpm_config_registry YARN_YARN_PATH yarn_rc_filename
		PIP_INDEX_URL PIP_CONFIG_FILE UV_INDEX UV_INDEX_URL UV_INDEX_CORP BUNDLE_GEMFILE COMPOSER_HOME DOCKER_HOST DOCKER_CONFIG KUBECONFIG HELM_PLUGINS TF_CLI_ARGS TF_CLI_ARGS_plan
		ANSIBLE_CONFIG ANSIBLE_CALLBACK_PLUGINS ANSIBLE_VAULT_PASSWORD_FILE PYTEST_ADDOPTS PYTEST_PLUGINS DJANGO_SETTINGS_MODULE
		XDG_CONFIG_HOME TMPDIR LOCALDOMAIN HOSTALIASES RES_OPTIONS TERMINFO CDPATH DBUS_SESSION_BUS_ADDRESS VAULT_ADDR OPENAI_BASE_URL ANTHROPIC_BASE_URL
		APT_CONFIG PUPPETEER_EXECUTABLE_PATH SPRING_APPLICATION_JSON SPRING_CONFIG_IMPORT CATALINA_HOME CATALINA_BASE JDK_HOME AWS_CONTAINER_CREDENTIALS_FULL_URI
		PRISMA_QUERY_ENGINE_LIBRARY PRISMA_SCHEMA_ENGINE_BINARY PRISMA_ENGINES_MIRROR ESBUILD_BINARY_PATH MAGICK_CODER_MODULE_PATH SWIFT_EXEC RCLONE_CONFIG
		RESTIC_PASSWORD_COMMAND SOPS_AGE_KEY_CMD BORG_PASSCOMMAND FZF_DEFAULT_COMMAND FZF_DEFAULT_OPTS CLOUDSDK_PYTHON SYSTEMD_EDITOR
		GIT_ALLOW_PROTOCOL JAVACMD GOPACKAGESDRIVER GCCGO CC_x86_64_unknown_linux_gnu CXX_aarch64 HOST_CC HOST_CXX FC RM RANLIB PROTOC LIBCLANG_PATH NAPI_RS_NATIVE_LIBRARY_PATH NODE_GYP_FORCE_PYTHON
		CHROME_BIN CYPRESS_RUN_BINARY PHP_BINARY ANT_HOME JRE_HOME HELM_DATA_HOME PULUMI_HOME CAML_LD_LIBRARY_PATH DOTNET_DiagnosticPorts MIX_REBAR3 GROFF_COMMAND_PREFIX TAPE
		R_PDFVIEWER RPS1 SPROMPT STACK_YAML CABAL_DIR BOTO_CONFIG AWS_DATA_PATH JSR_URL PUB_HOSTED_URL NETRC prompt4
		ld_preload Path path node_options PythonPath psmodulepath`) {
		danger := variableDanger(name)
		if danger == "" {
			t.Errorf("%s is not marked", name)
		}
		if !isPrintableASCII(danger) || !strings.Contains(danger, name) && !strings.Contains(danger, "differs") {
			t.Errorf("%s: %s", name, danger)
		}
	}
	list, err := os.ReadFile("testdata/dangerousvariables.txt")
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.Lines(string(list)) {
		if name = strings.TrimSpace(name); variableDanger(name) == "" {
			t.Errorf("%s is not marked", name)
		}
	}
	if long := "GIT_CONFIG_" + strings.Repeat("A", 4000); len(variableDanger(long)) > 100 {
		t.Errorf("a long name: %s", variableDanger(long))
	}
	if got := variableDanger("GIT_SSH_COMMAND"); got != "a tool runs the value of GIT_SSH_COMMAND as a command" {
		t.Error(got)
	}
}

// TestOrdinaryVariablesAreNotMarked checks that names which are usual for secrets are not
// marked. If they were marked, operators would soon ignore all marks.
func TestOrdinaryVariablesAreNotMarked(t *testing.T) {
	for _, name := range strings.Fields(`
		NPM_TOKEN NODE_AUTH_TOKEN GH_TOKEN GITHUB_TOKEN GH_ENTERPRISE_TOKEN GITLAB_TOKEN CI_JOB_TOKEN BITBUCKET_TOKEN GIT_TOKEN GIT_PASSWORD GIT_USERNAME GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL
		AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_REGION AWS_DEFAULT_REGION AWS_PROFILE AWS_ROLE_ARN AWS_WEB_IDENTITY_TOKEN_FILE AWS_ACCOUNT_ID
		AZURE_CLIENT_ID AZURE_CLIENT_SECRET AZURE_TENANT_ID ARM_CLIENT_SECRET GOOGLE_APPLICATION_CREDENTIALS GOOGLE_API_KEY CLOUDSDK_AUTH_ACCESS_TOKEN GEMINI_API_KEY
		OPENAI_API_KEY ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN HF_TOKEN MISTRAL_API_KEY DATABASE_URL DB_PASSWORD PGPASSWORD PGUSER PGHOST PGDATABASE MYSQL_PWD MYSQL_PASSWORD MYSQL_ROOT_PASSWORD
		POSTGRES_PASSWORD REDIS_URL REDIS_PASSWORD REDISCLI_AUTH MONGODB_URI AMQP_URL STRIPE_SECRET_KEY STRIPE_WEBHOOK_SECRET SENTRY_DSN SENTRY_AUTH_TOKEN SLACK_BOT_TOKEN SLACK_WEBHOOK_URL
		TWILIO_AUTH_TOKEN SENDGRID_API_KEY SMTP_PASSWORD DOCKER_AUTH_CONFIG DOCKER_PASSWORD DOCKERHUB_TOKEN GHCR_TOKEN REGISTRY_PASSWORD CARGO_REGISTRY_TOKEN CARGO_REGISTRIES_CORP_TOKEN
		UV_PUBLISH_TOKEN UV_INDEX_CORP_PASSWORD UV_INDEX_CORP_USERNAME POETRY_PYPI_TOKEN_PYPI POETRY_HTTP_BASIC_CORP_PASSWORD TWINE_PASSWORD TWINE_USERNAME PYPI_TOKEN GEM_HOST_API_KEY
		BUNDLE_GEMS__CONTRIBSYS__COM BUNDLE_RUBYGEMS__PKG__GITHUB__COM HEX_API_KEY NUGET_API_KEY COMPOSER_AUTH YARN_NPM_AUTH_TOKEN NPM_CONFIG__AUTHTOKEN npm_config__authToken NPM_CONFIG__PASSWORD
		COREPACK_NPM_TOKEN DENO_AUTH_TOKENS BUN_AUTH_TOKEN MAVEN_USERNAME MAVEN_PASSWORD MAVEN_GPG_PASSPHRASE ORG_GRADLE_PROJECT_signingKey ORG_GRADLE_PROJECT_signingPassword GRADLE_ENCRYPTION_KEY
		JFROG_TOKEN ARTIFACTORY_API_KEY SONAR_TOKEN CODECOV_TOKEN CC_TEST_REPORTER_ID SNYK_TOKEN DD_API_KEY NEW_RELIC_LICENSE_KEY CLOUDFLARE_API_TOKEN CF_API_TOKEN FLY_API_TOKEN VERCEL_TOKEN NETLIFY_AUTH_TOKEN
		HEROKU_API_KEY DIGITALOCEAN_ACCESS_TOKEN SUPABASE_SERVICE_ROLE_KEY FIREBASE_TOKEN LAUNCHDARKLY_SDK_KEY LD_SDK_KEY LD_MOBILE_KEY LD_ACCESS_TOKEN ld_sdk_key VAULT_TOKEN CONSUL_HTTP_TOKEN NOMAD_TOKEN TF_VAR_db_password TF_TOKEN_app_terraform_io
		PULUMI_ACCESS_TOKEN ANSIBLE_VAULT_PASSWORD ANSIBLE_BECOME_PASSWORD KUBE_TOKEN SSH_PRIVATE_KEY SSH_KEY DEPLOY_KEY GPG_PRIVATE_KEY GPG_PASSPHRASE SOPS_AGE_KEY AGE_KEY RESTIC_PASSWORD BORG_PASSPHRASE
		SECRET_KEY SECRET_KEY_BASE JWT_SECRET SESSION_SECRET RAILS_MASTER_KEY DJANGO_SECRET_KEY FLASK_SECRET_KEY APP_KEY APP_SECRET ENCRYPTION_KEY COOKIE_SECRET API_KEY API_TOKEN ACCESS_TOKEN TOKEN PASSWORD
		RELEASE_COOKIE JUPYTER_TOKEN MISE_GITHUB_TOKEN LINEAR_API_KEY JIRA_API_TOKEN NOTION_TOKEN LDAP_PASSWORD OAUTH_CLIENT_SECRET CLIENT_SECRET WEBHOOK_SECRET PRIVATE_KEY CERT_PASSWORD KEYSTORE_PASSWORD
		SPRING_DATASOURCE_PASSWORD AWS_CONTAINER_AUTHORIZATION_TOKEN RCLONE_CONFIG_PASS RCLONE_CONFIG_S3_SECRET_ACCESS_KEY RCLONE_PASSWORD
		CARGO_REGISTRIES_CORP_CREDENTIAL_TOKEN GIT_PAT DOCKER_USER GIT_CREDENTIALS CLAUDE_CODE_OAUTH_TOKEN CONDA_TOKEN HOMEBREW_GITHUB_API_TOKEN HELM_REGISTRY_PASSWORD BAZELISK_GITHUB_TOKEN COMPOSER_AUTH
		GOOGLE_CLOUD_PROJECT GODADDY_API_KEY NPMRC NODE_ENV ANSIBLE_BECOME_PASS MVNW_USERNAME
		A B X KEY NAME USER_TOKEN`) {
		if danger := variableDanger(name); danger != "" {
			t.Errorf("%s is marked: %s", name, danger)
		}
	}
}

func TestTablesOfVariables(t *testing.T) {
	for _, rules := range [][]variableRule{forbiddenVariables, dangerousVariables} {
		compare := func(a, b variableRule) int { return strings.Compare(a.pattern, b.pattern) }
		if !slices.IsSortedFunc(rules, compare) {
			sorted := slices.SortedFunc(slices.Values(rules), compare)
			for i := range rules {
				if rules[i] != sorted[i] {
					t.Errorf("the table is not sorted: %s should be %s", rules[i].pattern, sorted[i].pattern)
					break
				}
			}
		}
		for i, rule := range rules {
			if _, err := path.Match(rule.pattern, ""); err != nil || i > 0 && rules[i-1].pattern == rule.pattern {
				t.Errorf("%s is invalid or a duplicate: %v", rule.pattern, err)
			}
			if (rule.use == ordinary) != (rule.program == "") {
				t.Errorf("%s has the program %q", rule.pattern, rule.program)
			}
		}
	}
	general := slices.DeleteFunc(slices.Clone(dangerousVariables), func(r variableRule) bool { return r.use == ordinary })
	for _, rule := range dangerousVariables {
		if rule.pattern != strings.ToUpper(rule.pattern) {
			t.Errorf("%s is not in upper case", rule.pattern)
		}
		if _, ok := findRule(general, strings.ReplaceAll(rule.pattern, "*", "X")); rule.use == ordinary && !ok {
			t.Errorf("%s is an exception from no rule", rule.pattern)
		}
		if isForbidden(strings.ReplaceAll(rule.pattern, "*", "X")) {
			t.Errorf("%s is also forbidden", rule.pattern)
		}
	}
}
