package devcontainer

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

func TestAssignVariables(t *testing.T) {
	info := schema.InfoResponse{
		Allowlist: []schema.SecretName{"A", "b", "f"},
		Secrets:   parseManifest(t, "{A: , b: {env: B_VAR}, f: {as: file, path: /f}, B_VAR: {env: OTHER}}").Injections(),
	}
	for name, c := range map[string]struct {
		info    schema.InfoResponse
		only    []schema.SecretName
		want    Variables
		refused string // the name of the secret in the expected error, or ""
	}{
		"all in the manifest": {info, nil, Variables{"A": "A", "b": "B_VAR"}, ""},
		// The manifest declares f as a file, so the operator has approved no variable for f.
		"a file in only": {info, []schema.SecretName{"A", "f"}, nil, "f"},
		"only":           {info, []schema.SecretName{"b"}, Variables{"b": "B_VAR"}, ""},
		"twice in only":  {info, []schema.SecretName{"A", "A"}, Variables{"A": "A"}, ""},
		"none":           {schema.InfoResponse{}, nil, Variables{}, ""},
		// Without declarations, a variable has the name of its secret.
		"an allowlist alone": {schema.InfoResponse{Allowlist: info.Allowlist}, nil, Variables{"A": "A", "b": "b", "f": "f"}, ""},
		// AssignVariables accepts a name that is not on the allowlist, because the broker
		// checks the allowlist.
		"not allowed":         {info, []schema.SecretName{"X"}, Variables{"X": "X"}, ""},
		"a dash":              {info, []schema.SecretName{"a-b"}, nil, "a-b"},
		"a digit first":       {info, []schema.SecretName{"1a"}, nil, "1a"},
		"two in one variable": {schema.InfoResponse{Secrets: map[schema.SecretName]*schema.Injection{"b": {As: schema.InjectAsEnv, Env: "B"}}}, []schema.SecretName{"b", "B"}, nil, "B"},
	} {
		got, err := AssignVariables(c.info, c.only)
		if !maps.Equal(got, c.want) || (err != nil) != (c.refused != "") {
			t.Errorf("%s: AssignVariables returned %v, error %v, want %v", name, got, err, c.want)
		}
		if err != nil && (!errors.Is(err, ErrVariableName) || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fetchEnvironment fetches the secrets of variables from a server that sends answer. It returns
// base with these variables set. A variable in base with the same name is replaced.
func fetchEnvironment(t *testing.T, answer string, variables Variables, base []string) ([]string, error) {
	t.Helper()
	values, err := Fetch(t.Context(), serveAnswer(t, answer), variables.SecretNames(), 0)
	if err != nil {
		return nil, err
	}
	return variables.Environment(values, base)
}

func TestEnvironmentReplacesVariablesAndRefusesBadValues(t *testing.T) {
	// The entry of the variable VA with this value has exactly the maximum size.
	longest := strings.Repeat("x", maxEntrySize-len("VA="))
	for name, c := range map[string]struct {
		answer      string
		want        []string
		wantErr     error
		wantMessage string
	}{
		"values":            {getManyAnswer(`"A":{"value":"a"},"B":{"value_b64":"/w=="}`, ""), []string{"HOME=/h", "VA=a", "VB=\xff"}, nil, ""},
		"an empty value":    {getManyAnswer(`"A":{"value":""},"B":{"value":"="}`, ""), []string{"HOME=/h", "VA=", "VB=="}, nil, ""},
		"the longest":       {getManyAnswer(`"A":{"value":"`+longest+`"},"B":{"value":""}`, ""), []string{"HOME=/h", "VA=" + longest, "VB="}, nil, ""},
		"one byte too long": {getManyAnswer(`"A":{"value":"`+longest+`x"},"B":{"value":""}`, ""), nil, ErrVariableValue, "A is too long"},
		"a NUL":             {getManyAnswer(`"A":{"value":"TRIPWIRE\u0000"},"B":{"value":""}`, ""), nil, ErrVariableValue, "A contains a NUL byte"},
		"a NUL in base64":   {getManyAnswer(`"A":{"value":""},"B":{"value_b64":"AA=="}`, ""), nil, ErrVariableValue, "B contains a NUL byte"},
		"no value":          {getManyAnswer(`"A":{},"B":{"value":""}`, ""), nil, client.ErrProtocol, "without a value"},
		"no answer":         {getManyAnswer(`"A":{"value":"a"}`, ""), nil, client.ErrProtocol, "no value and no error for B"},
		"refused":           {`{"ok":false,"code":"rate_limited","message":"slow down"}`, nil, nil, "slow down"},
	} {
		got, err := fetchEnvironment(t, c.answer, Variables{"A": "VA", "B": "VB"}, []string{"VA=old", "HOME=/h", "VA=older"})
		if !slices.Equal(got, c.want) || (err == nil) != (c.wantMessage == "") {
			t.Errorf("%s: %.60q, %v", name, got, err)
		}
		if err != nil && (!strings.Contains(err.Error(), c.wantMessage) || (c.wantErr != nil && !errors.Is(err, c.wantErr)) || strings.Contains(err.Error(), "TRIPWIRE")) {
			t.Errorf("%s: %v, want %q", name, err, c.wantMessage)
		}
	}
}

// TestMissingErrorNamesAllSecrets checks that the error lists all missing secrets, sorted
// by name, and that the available secret is not returned either.
func TestMissingErrorNamesAllSecrets(t *testing.T) {
	answer := getManyAnswer(`"B":{"value":"b"}`, `"C":{"code":"denied","message":"no C"},"A":{"code":"not_found","message":"no A"}`)
	got, err := fetchEnvironment(t, answer, Variables{"A": "A", "B": "B", "C": "C"}, nil)
	missing, ok := errors.AsType[*MissingError](err)
	if got != nil || !ok || err.Error() != "no A; no C" {
		t.Fatalf("%q, %v", got, err)
	}
	if missing.Secrets[0].Name != "A" || missing.Secrets[0].Code != schema.CodeNotFound || missing.Secrets[1].Code != schema.CodeDenied {
		t.Errorf("%+v", missing.Secrets)
	}
}
