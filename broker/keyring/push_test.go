package keyring

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/keyhatch/keyhatch/broker/secmem"
)

// parseLine parses a push request in the same way as an admin connection. The arena
// contains some bytes of an earlier line before the push request, so the request does not
// start at offset 0.
func parseLine(line []byte) (*Snapshot, error) {
	const offset = 7
	arena, err := secmem.New(offset + len(line))
	if err != nil {
		return nil, err
	}
	inArena := arena.Bytes()[offset:][:len(line)]
	copy(inArena, line)
	return parsePush(arena, inArena)
}

// decodeValues decodes all values of a snapshot with encoding/json.
func decodeValues(t *testing.T, snapshot *Snapshot) map[string]string {
	t.Helper()
	values := map[string]string{}
	for name, l := range snapshot.secrets {
		var text string
		if err := json.Unmarshal(snapshot.bytesAt(l), &text); err != nil {
			t.Fatalf("cannot decode %s, which is stored as %s: %v", name, snapshot.bytesAt(l), err)
		}
		values[string(name)] = text
	}
	return values
}

// FuzzPush pushes random lines. If a push is accepted, FuzzPush compares the stored
// values with the values that encoding/json decodes.
func FuzzPush(f *testing.F) {
	for _, seed := range []string{
		`{"op":"push-creds","secrets":{"A":"x","B":{"u":"a\"b\\c\u0001","p":" { \" } "}},"secrets_b64":{"C":"AP\/\u002b"}}`,
		`{"secrets" : { "A" : { "x" : "y" , "z":"\\\"" } , "\u0042":{} } }`,
		`{"secrets":{"A":"(1)"},"secrets":{}}`, `{"secrets_b64":{"A":"AA==","B":"","C":"AAAA\n"}}`,
		`{"secrets":{"A":{"":"x"}}}`, `{"x":[{"secrets":1}],"secrets":{}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.IndexByte(line, '\n') >= 0 {
			return // a request never contains a newline
		}
		snapshot, err := parseLine(line)
		if err != nil {
			return
		}
		defer snapshot.arena.Free()
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
			if json.Unmarshal(raw, &text) != nil { // then raw is a bundle
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

// TestBundleIsStoredOnce checks that the arena contains only one copy of a bundle.
// parsePush converts a bundle to another form, so it must wipe the original bundle.
func TestBundleIsStoredOnce(t *testing.T) {
	snapshot, err := parseLine([]byte(`{"op":"push-creds","secrets":{"A":{"f":"TRIPWIRE"},"B":{"g":"` + string(bytes.Repeat([]byte("x"), 9000)) + `"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.arena.Free()
	if n := bytes.Count(snapshot.arena.Bytes(), []byte("TRIPWIRE")); n != 1 {
		t.Errorf("the arena has %d copies of the bundle, want 1", n)
	}
}
