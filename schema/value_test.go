package schema_test

import (
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

func TestValueMarshalJSON(t *testing.T) {
	type fields = map[schema.SecretName]string
	for name, tc := range map[string]struct {
		value schema.Value
		want  string // "" if MarshalJSON must return an error
	}{
		"text":                        {schema.Value{Text: "x"}, `"x"`},
		"empty text":                  {schema.Value{}, `""`},
		"markup":                      {schema.Value{Text: "<a&b>"}, `"<a&b>"`},
		"quotes":                      {schema.Value{Text: "\"\\\n"}, `"\"\\\n"`},
		"unicode":                     {schema.Value{Text: "é\u2603"}, "\"é\u2603\""},
		"bundle":                      {schema.Value{Fields: fields{"b": "2", "a": "<"}}, `{"a":"<","b":"2"}`},
		"empty bundle":                {schema.Value{Fields: fields{}}, `{}`},
		"bundle with an ignored text": {schema.Value{Text: "x", Fields: fields{"a": "1"}}, `{"a":"1"}`},
		"text with invalid UTF-8":     {schema.Value{Text: "TRIPWIRE\xff"}, ""},
		"bundle with invalid UTF-8":   {schema.Value{Fields: fields{"a": "1", "b": "TRIPWIRE\xff"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.value.MarshalJSON()
			if tc.want == "" {
				if err == nil {
					t.Fatalf("MarshalJSON encoded invalid UTF-8 without an error")
				}
				if strings.Contains(err.Error(), "TRIPWIRE") {
					t.Errorf("the error contains the value of the secret")
				}
				return
			}
			if err != nil || strings.TrimSuffix(string(got), "\n") != tc.want {
				t.Errorf("got %s, %v; want %s", got, err, tc.want)
			}
		})
	}
}

// TestEmptyFieldIsEncoded checks that an empty text, map, or list is encoded, because an
// empty field differs from an absent field. For example, an empty push is valid, and the
// broker reads the manifest file only if the manifest field is absent.
func TestEmptyFieldIsEncoded(t *testing.T) {
	empty := ""
	for _, tc := range []struct {
		value any
		want  string
	}{
		{schema.PushRequest{Op: "o", Secrets: map[schema.SecretName]schema.Value{}}, `{"op":"o","secrets":{}}`},
		{schema.PushRequest{Op: "o", SecretsB64: map[schema.SecretName][]byte{"B": {}}}, `{"op":"o","secrets_b64":{"B":""}}`},
		{schema.ReloadRequest{Op: "o", Name: "n", Manifest: &empty}, `{"op":"o","name":"n","manifest":""}`},
		{schema.ReloadRequest{Op: "o", Name: "n"}, `{"op":"o","name":"n"}`},
		{schema.GetManyRequest{Op: "o", Names: []schema.SecretName{}}, `{"op":"o","names":[]}`},
		{schema.GetManyRequest{Op: "o"}, `{"op":"o"}`},
		{schema.GetResponse{OK: true, SecretValue: schema.SecretValue{Value: &empty}}, `{"ok":true,"value":""}`},
		{schema.GetResponse{OK: true, SecretValue: schema.SecretValue{ValueB64: []byte{}}}, `{"ok":true,"value_b64":""}`},
		{schema.ListResponse{OK: true}, `{"ok":true,"names":[]}`},
		{schema.ErrorResponse{Code: "c", Message: "m"}, `{"ok":false,"code":"c","message":"m"}`},
	} {
		got, err := wire.Encode(tc.value)
		if err != nil || string(got) != tc.want+"\n" {
			t.Errorf("%T: got %s, %v; want %s", tc.value, got, err, tc.want)
		}
	}
}
