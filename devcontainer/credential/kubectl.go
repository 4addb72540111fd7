package credential

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/keyhatch/keyhatch/schema"
)

// execAPIVersions are the supported versions of kubectl's exec plugin API. The messages of
// all these versions have the same fields.
var execAPIVersions = []string{"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"}

// FormatKubectl formats a secret as the output of an exec plugin (Kubernetes
// documentation, "client-go credential plugins"). execInfo is the value of
// KUBERNETES_EXEC_INFO, which contains the version of the API. If execInfo is empty, the
// version is v1.
func FormatKubectl(execInfo string, name schema.SecretName, value schema.SecretValue) (answer []byte, err error) {
	version := execAPIVersions[0]
	if execInfo != "" {
		var request struct {
			APIVersion string `json:"apiVersion"`
		}
		if err := json.Unmarshal([]byte(execInfo), &request); err != nil {
			return nil, fmt.Errorf("cannot read KUBERNETES_EXEC_INFO: the value is not valid JSON")
		}
		version = ""
		for _, supported := range execAPIVersions {
			if request.APIVersion == supported {
				version = supported
			}
		}
		if version == "" {
			return nil, fmt.Errorf("kubectl asks for an unsupported version of the exec API (supported versions: %s): set apiVersion: %s in the exec section of the user in the kubeconfig file", strings.Join(execAPIVersions, " and "), execAPIVersions[0])
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
			return nil, fmt.Errorf("%w: the bundle %s needs a value in the field token, or in both fields clientCertificateData and clientKeyData", ErrUnusable, name)
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
