package keyring

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// parseLine creates a snapshot from a push request. It uses a copy of the request, because Parse
// can change the request. It wipes the copy afterwards, as the broker does with the request.
func parseLine(k *Keyring, line []byte) (*Snapshot, error) {
	line = bytes.Clone(line)
	defer clear(line)
	request, err := Parse(line)
	if err != nil {
		return nil, err
	}
	return request.newSnapshot(&k.spare)
}

// decodeValues decodes the response lines of all secrets in a snapshot with encoding/json, and
// returns the values by name. The test fails if a line is not a valid response to a get, or if
// Fields does not return the middle part of the line.
func decodeValues(t *testing.T, snapshot *Snapshot) map[string]string {
	t.Helper()
	values := map[string]string{}
	for name := range snapshot.names.index {
		value, _ := snapshot.Lookup(name)
		var response struct {
			OK       bool    `json:"ok"`
			Value    *string `json:"value"`
			ValueB64 *string `json:"value_b64"`
			Bundle   bool    `json:"bundle"`
		}
		line, ended := bytes.CutSuffix(value.Line, []byte("\n"))
		if err := json.Unmarshal(line, &response); err != nil || !ended || bytes.Contains(line, []byte("\n")) {
			t.Fatalf("cannot decode %s, which is stored as %s: %v", name, value.Line, err)
		}
		if want := `{"ok":true,` + string(value.Fields()) + "}\n"; string(value.Line) != want {
			t.Fatalf("the line of %s is %s, but with its fields it would be %s", name, value.Line, want)
		}
		text := response.Value
		if text == nil {
			text = response.ValueB64
		}
		if !response.OK || text == nil || (response.Value != nil && response.ValueB64 != nil) || response.Bundle && response.Value == nil {
			t.Fatalf("the line of %s is %s", name, value.Line)
		}
		values[string(name)] = *text
	}
	return values
}

// FuzzPush pushes random lines. If ParseUsual accepts a push, Parse must accept the push too,
// and both must return the same request. If Parse accepts a push, FuzzPush compares the stored
// values with the values that encoding/json decodes.
func FuzzPush(f *testing.F) {
	for _, seed := range []string{
		`{"op":"push-creds","secrets":{"A":"x","B":{"u":"a\"b\\c\u0001","p":" { \" } "}},"secrets_b64":{"C":"AP\/\u002b"}}`,
		`{"secrets" : { "A" : { "x" : "y" , "z":"\\\"" } , "\u0042":{} } }`,
		`{"secrets":{"A":"(1)"},"secrets":{}}`, `{"secrets_b64":{"A":"AA==","B":"","C":"AAAA\n"}}`,
		`{"secrets":{"A":{"":"x"}}}`, `{"x":[{"secrets":1}],"secrets":{}}`,
		`{"op":"push-creds","exclusive":true,"secrets":{"A":"\ud83d\ude00é","B":"\u000012345678\"\\"},"secrets_b64":{"C":"AAAAAA=="}}`,
		`{"op":"push-creds","secrets":{}}`, `{"op":"push-creds","secrets":{"A":"x","A":"y"}}`,
		`{"op":"push-creds","exclusive":false,"secrets":{"A":"\ud83d"},"secrets_b64":{"A":"AAA=","B":"AAB="}}`,
		"{ \"op\" : \"push-creds\",\t\"secrets\" : { \"A\" :\"x\", \"B\" : { \"u\" :\"1\" , \"u\":\"2\"}\r} } ",
		"{\"op\":\"push-creds\",\"secrets\":{\"A\":\"1234567\x7f\xc3\xa91234567\xff\x01\"}}",
	} {
		f.Add([]byte(seed))
	}
	k := New() // one keyring for all lines, so that its memory is used again
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.IndexByte(line, '\n') >= 0 {
			return // a request never contains a newline
		}
		compareParsers(t, k, line)
		snapshot, err := parseLine(k, line)
		if err != nil {
			return
		}
		defer snapshot.Release()
		var want struct {
			Secrets    map[string]json.RawMessage `json:"secrets"`
			SecretsB64 map[string]string          `json:"secrets_b64"`
		}
		if err := json.Unmarshal(line, &want); err != nil {
			t.Fatalf("the push was accepted, but encoding/json fails: %v", err)
		}
		got := decodeValues(t, snapshot)
		if len(got) != len(want.Secrets)+len(want.SecretsB64) {
			t.Fatalf("the snapshot has %d secrets, want %d", len(got), len(want.Secrets)+len(want.SecretsB64))
		}
		for name, raw := range want.Secrets {
			var text string
			isBundle := json.Unmarshal(raw, &text) != nil
			if value, _ := snapshot.Lookup(schema.SecretName(name)); isBundle != bytes.HasSuffix(value.Line, []byte(`,"bundle":true}`+"\n")) {
				t.Errorf("the line of %s is %s, but it was pushed as %s", name, value.Line, raw)
			}
			if isBundle {
				var compact bytes.Buffer
				if err := json.Compact(&compact, raw); err != nil {
					t.Fatal(err)
				}
				text = compact.String()
			}
			if got[name] != text {
				t.Errorf("%s is %q, want %q", name, got[name], text)
			}
		}
		for name, text := range want.SecretsB64 {
			if _, err := base64.StdEncoding.Strict().DecodeString(text); err != nil || got[name] != text {
				t.Errorf("%s is %q, want %q; decoding the wanted value: %v", name, got[name], text, err)
			}
		}
	})
}

// compareParsers calls ParseUsual, which must not change the line. If ParseUsual accepts the line,
// then Decode and Parse must accept the line too, and return the same values. The broker calls
// these two functions for a line that ParseUsual does not accept.
func compareParsers(t *testing.T, k *Keyring, line []byte) {
	t.Helper()
	unchanged := bytes.Clone(line)
	usual, ok := k.ParseUsual(line)
	if !bytes.Equal(line, unchanged) {
		t.Fatal("ParseUsual changed the line")
	}
	if !ok {
		return
	}
	var request schema.Request
	if err := wire.Decode(line, &request, schema.MaxDepth); err != nil || request.Op != schema.OpPush {
		t.Fatalf("ParseUsual accepts %q, but Decode returned the op %q, error %v", line, request.Op, err)
	}
	var options struct {
		Exclusive bool `json:"exclusive"`
	}
	if err := wire.Decode(line, &options, schema.MaxDepth); err != nil || options.Exclusive != usual.Exclusive {
		t.Fatalf("for %q, ParseUsual returned %v for exclusive, but Decode returned %v, error %v", line, usual.Exclusive, options.Exclusive, err)
	}
	want, err := Parse(unchanged)
	if err != nil {
		t.Fatalf("ParseUsual accepts %q, but Parse returned %v", line, err)
	}
	if !equalRequests(usual, want) {
		t.Fatalf("for %q, ParseUsual and Parse returned different requests:\n%+v\n%+v", line, *usual, *want)
	}
	// After the push, ParseUsual must use the same list of names for the same line.
	if _, err := k.Push(usual); err != nil {
		t.Fatal(err)
	}
	again, ok := k.ParseUsual(line)
	if !ok || again.names != usual.names || !equalRequests(again, usual) {
		t.Fatalf("after a push of %q, ParseUsual returned another request for the same line", line)
	}
}

func equalRequests(a, b *Request) bool {
	return slices.EqualFunc(a.secrets, b.secrets, func(a, b wire.PushedSecret) bool { return reflect.DeepEqual(a, b) }) &&
		slices.Equal(a.names.names, b.names.names) && maps.Equal(a.names.index, b.names.index)
}

// TestValuesAreStoredOnce checks that the memory of a snapshot contains each value only once.
func TestValuesAreStoredOnce(t *testing.T) {
	k := New()
	line := []byte(`{"op":"push-creds","secrets":{"A":{"f":"TRIPWIRE"},"B":"TRIPWIRE"},"secrets_b64":{"C":"TRIPWIRE"}}`)
	request, ok := k.ParseUsual(line)
	if !ok {
		t.Fatal("ParseUsual refuses the line")
	}
	if _, err := k.Push(request); err != nil {
		t.Fatal(err)
	}
	snapshot := k.acquire()
	defer snapshot.Release()
	if n := bytes.Count(snapshot.arena.Bytes(), []byte("TRIPWIRE")); n != 3 {
		t.Errorf("the snapshot has %d copies of the 3 values, want 3", n)
	}
}

// TestValidBase64 calls validBase64 with all texts of up to 5 characters of a small alphabet, and
// again with each of these texts after 64 valid digits. The results must be the same as the
// results of encoding/base64, except that line ends are never valid.
func TestValidBase64(t *testing.T) {
	const alphabet = "AQgB/+=-\n\x00\xff"
	var check func(text string, more int)
	check = func(text string, more int) {
		for _, prefix := range []string{"", strings.Repeat("AZaz09+/", 8)} {
			_, err := base64.StdEncoding.Strict().DecodeString(prefix + text)
			want := err == nil && !strings.Contains(text, "\n") // the decoder skips line ends
			if got := validBase64([]byte(prefix + text)); got != want {
				t.Fatalf("validBase64(%q) is %v, want %v", prefix+text, got, want)
			}
		}
		for i := 0; i < len(alphabet) && more > 0; i++ {
			check(text+alphabet[i:i+1], more-1)
		}
	}
	check("", 5)
}
