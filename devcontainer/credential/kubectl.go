package credential

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/keyhatch/keyhatch/schema"
)

// kubectlVersions are those of the exec plugin's API that this answers. Their
// messages are the same.
var kubectlVersions = []string{"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"}

// KubectlAnswer returns what an exec plugin prints (Kubernetes documentation,
// "client-go credential plugins"). info is KUBERNETES_EXEC_INFO, which says the
// version of the API; empty means v1.
func KubectlAnswer(info string, name schema.SecretName, value schema.SecretValue) ([]byte, error) {
	version := kubectlVersions[0]
	if info != "" {
		var asked struct {
			APIVersion string `json:"apiVersion"`
		}
		if err := json.Unmarshal([]byte(info), &asked); err != nil {
			return nil, fmt.Errorf("KUBERNETES_EXEC_INFO is not JSON")
		}
		version = ""
		for _, known := range kubectlVersions {
			if asked.APIVersion == known {
				version = known
			}
		}
		if version == "" {
			return nil, fmt.Errorf("kubectl asks for another version than %v: set apiVersion: %s in the user's exec section", kubectlVersions, kubectlVersions[0])
		}
	}
	status := map[string]string{}
	if value.Bundle {
		fields, err := bundle(name, value)
		if err != nil {
			return nil, err
		}
		for _, field := range []string{"token", "clientCertificateData", "clientKeyData", "expirationTimestamp"} {
			if fields[field] != "" {
				status[field] = fields[field]
			}
		}
		if status["token"] == "" && (status["clientCertificateData"] == "" || status["clientKeyData"] == "") {
			return nil, fmt.Errorf("%s: %w: the bundle has neither token nor clientCertificateData and clientKeyData", name, ErrCredential)
		}
	} else {
		text, err := devcontainer.Bytes(value)
		if err != nil {
			return nil, err
		}
		status["token"] = string(text)
	}
	return json.Marshal(struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Status     map[string]string `json:"status"`
	}{version, "ExecCredential", status}, json.Deterministic(true))
}
