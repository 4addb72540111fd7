package credential

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/keyhatch/keyhatch/schema"
)

// execAPIVersions are those of the exec plugin's API that this answers. Their
// messages are the same.
var execAPIVersions = []string{"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"}

// FormatKubectl returns what an exec plugin prints (Kubernetes documentation,
// "client-go credential plugins"). execInfo is
// KUBERNETES_EXEC_INFO, which contains the version of the API. If it is empty, the
// version is v1.
func FormatKubectl(execInfo string, name schema.SecretName, value schema.SecretValue) (answer []byte, err error) {
	version := execAPIVersions[0]
	if execInfo != "" {
		var request struct {
			APIVersion string `json:"apiVersion"`
		}
		if err := json.Unmarshal([]byte(execInfo), &request); err != nil {
			return nil, fmt.Errorf("KUBERNETES_EXEC_INFO is not JSON")
		}
		version = ""
		for _, supported := range execAPIVersions {
			if request.APIVersion == supported {
				version = supported
			}
		}
		if version == "" {
			return nil, fmt.Errorf("kubectl asks for another version than %v: set apiVersion: %s in the user's exec section", execAPIVersions, execAPIVersions[0])
		}
	}
	status := map[string]string{}
	if value.Bundle {
		fields, err := bundleFields(name, value)
		if err != nil {
			return nil, err
		}
		for _, field := range []string{"token", "clientCertificateData", "clientKeyData", "expirationTimestamp"} {
			if fields[field] != "" {
				status[field] = fields[field]
			}
		}
		if status["token"] == "" && (status["clientCertificateData"] == "" || status["clientKeyData"] == "") {
			return nil, fmt.Errorf("%s: %w: the bundle has neither token nor clientCertificateData and clientKeyData", name, ErrUnusable)
		}
	} else {
		text, err := devcontainer.ValueBytes(value)
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
