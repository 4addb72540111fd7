package cmd_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// TestDockerLogsInThroughHelper runs docker, which reads an image manifest from a registry that
// requires a login. The credential helper must give docker the login for this registry, and no
// login for a registry that is not in the project's manifest.
func TestDockerLogsInThroughHelper(t *testing.T) {
	testenv.RequireTool(t, "docker")
	const manifest = `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}`
	manifestsServed := 0
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		if name, password, _ := r.BasicAuth(); name != "bot" || password != token {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		switch {
		case strings.Contains(r.URL.Path, "/manifests/"):
			manifestsServed++
			w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
			fmt.Fprint(w, manifest)
		case strings.Contains(r.URL.Path, "/blobs/"):
			fmt.Fprint(w, "{}")
		}
	}))
	defer s.Close()
	h := newHost(t, "  docker: [{host: '"+address(s)+"', secret: T, username: bot}]\n", `{"T":"`+token+`"}`)
	h.env = append(h.env, "SSL_CERT_FILE="+h.writeCACert(s))
	writeConfig := func(helper string) {
		text, err := json.Marshal(map[string]any{"credHelpers": map[string]string{address(s): helper}, "experimental": "enabled"})
		if err != nil {
			t.Fatal(err)
		}
		h.write("home/.docker/config.json", string(text))
	}
	writeConfig("keyhatch")
	out, err := h.try("", "docker", "manifest", "inspect", address(s)+"/x/y:latest")
	if err != nil || !strings.Contains(out, "schemaVersion") || manifestsServed == 0 {
		t.Errorf("docker manifest inspect: %v; the registry served %d manifests: %s", err, manifestsServed, out)
	}
	h.checkTokenNotOnDisk()
	// The helper must print no login for a registry that is not in the project's manifest.
	if out, err := h.try("other.example\n", "docker-credential-keyhatch", "get"); err == nil || out != "credentials not found in native keychain\n" {
		t.Errorf("%v: %q", err, out)
	}
	if out, err := h.try(`{"ServerURL":"x","Username":"u","Secret":"s"}`, "docker-credential-keyhatch", "store"); err == nil || !strings.Contains(out, "sidecar") {
		t.Errorf("%v: %q", err, out)
	}
	if out := h.run("", "docker-credential-keyhatch", "list"); out != `{"`+address(s)+`":"bot"}`+"\n" {
		t.Errorf("%q", out)
	}
}

// TestAWSSignsWithBundle runs the command aws, which must sign a request with the AWS key pair in
// a bundle.
func TestAWSSignsWithBundle(t *testing.T) {
	testenv.RequireTool(t, "aws")
	var authorization, session string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization, session = r.Header.Get("Authorization"), r.Header.Get("X-Amz-Security-Token")
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprint(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>arn:aws:iam::1:user/brokered</Arn><UserId>U</UserId><Account>1</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`)
	}))
	defer s.Close()
	h := newHost(t, "  aws: AWS\n", `{"AWS":{"aws_access_key_id":"AKIABROKERED","aws_secret_access_key":"`+token+`","aws_session_token":"SESSION"}}`)
	h.write("home/.aws/config", "[default]\nregion = eu-central-1\ncredential_process = "+binDir+"/keyhatch credential aws\n")
	if out := h.run("", "aws", "sts", "get-caller-identity", "--endpoint-url", s.URL); !strings.Contains(out, "user/brokered") {
		t.Errorf("%s", out)
	}
	if !strings.Contains(authorization, "Credential=AKIABROKERED/") || session != "SESSION" {
		t.Errorf("the request has the authorization %q and the session token %q", authorization, session)
	}
	h.checkTokenNotOnDisk()
}

// TestKubectlSendsToken runs kubectl with keyhatch as its credential plugin. kubectl must send
// the token to a server that requires the token.
func TestKubectlSendsToken(t *testing.T) {
	testenv.RequireTool(t, "kubectl")
	authorization := ""
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization = r.Header.Get("Authorization")
		if authorization != "Bearer "+token {
			http.Error(w, "{}", http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"major":"1","minor":"30","gitVersion":"v1.30.0"}`)
	}))
	defer s.Close()
	h := newHost(t, "  kubectl: T\n", `{"T":"`+token+`"}`)
	kubeconfig := h.write("home/config", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]
contexts: [{name: x, context: {cluster: c, user: me}}]
current-context: x
users:
- name: me
  user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: keyhatch, args: [credential, kubectl], interactiveMode: Never}}
`, s.URL, h.writeCACert(s)))
	version := h.run("", "kubectl", "version", "--client", "-o", "json")
	if strings.Contains(version, `"minor": "20"`) { // kubectl 1.20 does not support v1 of the exec plugin API
		text, err := os.ReadFile(kubeconfig)
		if err != nil {
			t.Fatal(err)
		}
		kubeconfig = h.write("home/config", strings.NewReplacer("k8s.io/v1,", "k8s.io/v1beta1,", ", interactiveMode: Never", "").Replace(string(text)))
	}
	if out, err := h.try("", "kubectl", "--kubeconfig", kubeconfig, "get", "--raw", "/version"); err != nil || !strings.Contains(out, "v1.30.0") {
		t.Errorf("%v: %s (the server received a token of %d bytes)", err, out, len(authorization))
	}
	h.checkTokenNotOnDisk()
}
