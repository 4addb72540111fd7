package credential

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/keyhatch/keyhatch/schema"
)

// FormatAWS formats an AWS key pair as the output of a credential_process (AWS SDKs and
// Tools Reference Guide, "Process credential provider").
func FormatAWS(name schema.SecretName, value schema.SecretValue) (answer []byte, err error) {
	fields, err := bundleFields(name, value)
	if err != nil {
		return nil, err
	}
	for _, field := range []string{"aws_access_key_id", "aws_secret_access_key"} {
		if fields[field] == "" {
			return nil, fmt.Errorf("%w: the field %s of the bundle %s is missing or empty", ErrUnusable, field, name)
		}
	}
	return json.Marshal(struct {
		Version         int
		AccessKeyID     string `json:"AccessKeyId"`
		SecretAccessKey string
		SessionToken    string `json:",omitzero"`
		Expiration      string `json:",omitzero"`
	}{1, fields["aws_access_key_id"], fields["aws_secret_access_key"], fields["aws_session_token"], fields["expiration"]})
}
