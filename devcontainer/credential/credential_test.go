package credential

import (
	"errors"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

func textValue(text string) schema.SecretValue { return schema.SecretValue{Value: &text} }

func bundleValue(fields string) schema.SecretValue {
	return schema.SecretValue{Value: &fields, Bundle: true}
}

func TestGitAnswersOnlyMatchingQueries(t *testing.T) {
	logins := []schema.Login{
		{Host: "github.com", Secret: "GH"}, {Host: "git.example:8443", Secret: "GH", Username: "bot"},
		{Host: "http://localhost:3000", Secret: "GH"}, {Host: "usual.example:443", Secret: "GH"},
		{Host: "http://plain.example:80", Secret: "GH"},
	}
	for _, c := range []struct {
		name, query string
		value       schema.SecretValue
		want        string // "-" means that no login matches
	}{
		{"a token", "protocol=https\nhost=github.com\n\n", textValue("tok"), "username=x-access-token\npassword=tok\n"},
		{"a path and unknown attributes", "capability[]=authtype\nprotocol=https\nhost=github.com\npath=a/b.git\nwwwauth[]=Basic realm=\"x\"\n", textValue("tok"), "username=x-access-token\npassword=tok\n"},
		{"an uppercase host", "protocol=https\nhost=GitHub.com\n", textValue("tok"), "username=x-access-token\npassword=tok\n"},
		{"the default port", "protocol=https\nhost=github.com:443\n", textValue("tok"), "username=x-access-token\npassword=tok\n"},
		{"the default port in the manifest", "protocol=https\nhost=usual.example\n", textValue("tok"), "username=x-access-token\npassword=tok\n"},
		{"a login with a username", "protocol=https\nhost=git.example:8443\n", textValue("tok"), "username=bot\npassword=tok\n"},
		{"a query with the username of the login", "protocol=https\nhost=git.example:8443\nusername=bot\n", textValue("tok"), "username=bot\npassword=tok\n"},
		{"a query with a username for a login without one", "protocol=https\nhost=github.com\nusername=me\n", textValue("tok"), "username=me\npassword=tok\n"},
		{"a query with the username in the bundle", "protocol=https\nhost=github.com\nusername=me\n", bundleValue(`{"username":"me","password":"pw"}`), "username=me\npassword=pw\n"},
		{"a bundle", "protocol=https\nhost=github.com\n", bundleValue(`{"username":"me","password":"pw"}`), "username=me\npassword=pw\n"},
		{"http, declared with http://", "protocol=http\nhost=localhost:3000\n", textValue("tok"), "username=x-access-token\npassword=tok\n"},
		{"http, not declared", "protocol=http\nhost=github.com\n", textValue("tok"), "-"},
		{"https, declared with http://", "protocol=https\nhost=localhost:3000\n", textValue("tok"), "-"},
		{"another host", "protocol=https\nhost=evil.example\n", textValue("tok"), "-"},
		{"another port", "protocol=https\nhost=github.com:8443\n", textValue("tok"), "-"},
		{"a host with a declared host as suffix", "protocol=https\nhost=evil-github.com\n", textValue("tok"), "-"},
		{"a host after a username", "protocol=https\nhost=github.com@evil.example\n", textValue("tok"), "-"},
		{"the default port of http", "protocol=http\nhost=plain.example:80\n", textValue("tok"), "username=x-access-token\npassword=tok\n"},
		{"the default port of http, omitted", "protocol=http\nhost=plain.example\n", textValue("tok"), "username=x-access-token\npassword=tok\n"},
		{"a host that ends in a carriage return", "protocol=https\nhost=github.com\r\n", textValue("tok"), "-"},
		{"no host", "protocol=https\n", textValue("tok"), "-"},
		{"an attribute after the empty line", "protocol=https\n\nhost=github.com\n", textValue("tok"), "-"},
	} {
		q, err := ReadGitQuery(strings.NewReader(c.query))
		if err != nil {
			t.Fatal(err)
		}
		got := "-"
		if login, ok := q.FindLogin(logins); ok {
			answer, err := q.FormatAnswer(login, c.value)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			got = string(answer)
		}
		if got != c.want {
			t.Errorf("%s: the answer is %q, want %q", c.name, got, c.want)
		}
	}
	q := GitQuery{scheme: "https", host: "git.example:8443", username: "TRIPWIRE"}
	for want, value := range map[string]schema.SecretValue{
		"is not the username bot, which the manifest declares for git.example:8443": textValue("tok"),
		"is not the username in the secret GH":                                      bundleValue(`{"username":"TRIPWIRE-2","password":"pw"}`),
	} {
		answer, err := q.FormatAnswer(logins[1], value)
		if answer != nil || !errors.Is(err, ErrOtherUsername) || !strings.HasSuffix(err.Error(), want) || strings.Contains(err.Error(), "TRIPWIRE") {
			t.Errorf("%q, %v, want an error that ends in %q", answer, err, want)
		}
	}
	for pattern, want := range map[string]bool{
		"": true, "https://github.com": true, "https://github.com:443": true, "github.com": true, "https://": true, "https://GitHub.com/a/b": true,
		"https://me@github.com": true, "https://*.com": true, "http://github.com": false, "https://example.com": false, "https://github.com:8443": false,
	} {
		if (GitQuery{scheme: "https", host: "github.com"}).MayMatch(pattern) != want {
			t.Errorf("pattern %q: MayMatch returned %v", pattern, !want)
		}
	}
	if q, err := ReadGitQuery(strings.NewReader("x=" + strings.Repeat("x", maxQuerySize) + "\nprotocol=https\n")); err == nil {
		t.Errorf("ReadGitQuery accepted a query that is too long: %+v", q)
	}
	if _, err := ReadGitQuery(strings.NewReader("nonsense\n")); err == nil {
		t.Error("ReadGitQuery accepted a line without =")
	}
}

// TestUnusableSecretIsRefusedWithoutItsValue formats secrets that cannot be used as
// credentials. The result must be an error that does not contain the secret's value.
func TestUnusableSecretIsRefusedWithoutItsValue(t *testing.T) {
	login := schema.Login{Host: "h", Secret: "GH"}
	for name, format := range map[string]func() ([]byte, error){
		"a newline":         func() ([]byte, error) { return GitQuery{}.FormatAnswer(login, textValue("TRIPWIRE\nhost=evil")) },
		"a carriage return": func() ([]byte, error) { return GitQuery{}.FormatAnswer(login, textValue("TRIPWIRE\r")) },
		"a NUL":             func() ([]byte, error) { return GitQuery{}.FormatAnswer(login, textValue("TRIPWIRE\x00")) },
		"a newline in a username": func() ([]byte, error) {
			return GitQuery{}.FormatAnswer(login, bundleValue(`{"username":"TRIPWIRE\nx","password":"p"}`))
		},
		"an empty value": func() ([]byte, error) { return GitQuery{}.FormatAnswer(login, textValue("")) },
		"no password":    func() ([]byte, error) { return GitQuery{}.FormatAnswer(login, bundleValue(`{"pass":"TRIPWIRE"}`)) },
		"a nested bundle": func() ([]byte, error) {
			return GitQuery{}.FormatAnswer(login, bundleValue(`{"password":{"TRIPWIRE":1}}`))
		},
		"docker without username":         func() ([]byte, error) { return FormatDocker("h", login, textValue("TRIPWIRE")) },
		"aws with a text":                 func() ([]byte, error) { return FormatAWS("AWS", textValue("TRIPWIRE")) },
		"aws without secret key":          func() ([]byte, error) { return FormatAWS("AWS", bundleValue(`{"aws_access_key_id":"TRIPWIRE"}`)) },
		"kubectl with half a certificate": func() ([]byte, error) { return FormatKubectl("", "K", bundleValue(`{"clientKeyData":"TRIPWIRE"}`)) },
	} {
		answer, err := format()
		if !errors.Is(err, ErrUnusable) || answer != nil {
			t.Errorf("%s: the answer is %q, error %v, want ErrUnusable", name, answer, err)
		} else if strings.Contains(err.Error(), "TRIPWIRE") {
			t.Errorf("%s: the error contains a value: %v", name, err)
		}
	}
}

func TestDockerFindsLoginsAndFormatsAnswers(t *testing.T) {
	logins := []schema.Login{
		{Host: "ghcr.io", Secret: "T", Username: "bot"}, {Host: "docker.io", Secret: "T", Username: "hub"},
		{Host: "http://localhost:5000", Secret: "T", Username: "plain"},
	}
	for registry, user := range map[string]string{
		"ghcr.io": "bot", "https://ghcr.io": "bot", "https://ghcr.io/v2/": "bot", "ghcr.io:443": "bot",
		"https://index.docker.io/v1/": "hub", "docker.io": "hub", "http://localhost:5000": "plain",
		"localhost:5000": "", "evil.example": "", "ghcr.io.evil.example": "", "http://ghcr.io": "", "": "",
	} {
		login, ok := FindDockerLogin(logins, registry)
		if ok != (user != "") || login.Username != user {
			t.Errorf("for registry %q, FindDockerLogin found %+v, want username %q", registry, login, user)
		}
	}
	if got, err := FormatDocker("https://ghcr.io", logins[0], textValue("t\"ok")); err != nil || string(got) != `{"ServerURL":"https://ghcr.io","Username":"bot","Secret":"t\"ok"}` {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := FormatDockerList(logins); err != nil || string(got) != `{"docker.io":"hub","ghcr.io":"bot","http://localhost:5000":"plain"}` {
		t.Errorf("%s, %v", got, err)
	}
}

func TestFormatAWS(t *testing.T) {
	for in, want := range map[string]string{
		`{"aws_access_key_id":"AK","aws_secret_access_key":"s"}`:                                                                     `{"Version":1,"AccessKeyId":"AK","SecretAccessKey":"s"}`,
		`{"aws_access_key_id":"AK","aws_secret_access_key":"s","aws_session_token":"t","expiration":"2030-01-01T00:00:00Z","x":"y"}`: `{"Version":1,"AccessKeyId":"AK","SecretAccessKey":"s","SessionToken":"t","Expiration":"2030-01-01T00:00:00Z"}`,
	} {
		if got, err := FormatAWS("AWS", bundleValue(in)); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
}

func TestFormatKubectl(t *testing.T) {
	const prefix, kind = `{"apiVersion":"client.authentication.k8s.io/`, `","kind":"ExecCredential","status":`
	for _, c := range []struct {
		info  string
		value schema.SecretValue
		want  string
	}{
		{"", textValue("tok"), prefix + "v1" + kind + `{"token":"tok"}}`},
		{`{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":false}}`, textValue("tok"), prefix + "v1" + kind + `{"token":"tok"}}`},
		{`{"apiVersion":"client.authentication.k8s.io/v1beta1"}`, textValue("tok"), prefix + "v1beta1" + kind + `{"token":"tok"}}`},
		{"", bundleValue(`{"clientCertificateData":"c","clientKeyData":"k","other":"x"}`), prefix + "v1" + kind + `{"clientCertificateData":"c","clientKeyData":"k"}}`},
		{"", bundleValue(`{"token":"tok","expirationTimestamp":"2030-01-01T00:00:00Z"}`), prefix + "v1" + kind + `{"expirationTimestamp":"2030-01-01T00:00:00Z","token":"tok"}}`},
	} {
		if got, err := FormatKubectl(c.info, "K", c.value); err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v", c.info, got, err)
		}
	}
	for _, info := range []string{"nonsense", `{"apiVersion":"client.authentication.k8s.io/v9"}`, `{}`} {
		if got, err := FormatKubectl(info, "K", textValue("tok")); err == nil {
			t.Errorf("KUBERNETES_EXEC_INFO=%s: the answer is %s, want an error", info, got)
		}
	}
}
