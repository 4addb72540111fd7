package broker

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// snapshotOf pushes line as an admin session does, behind some bytes of an
// earlier line.
func snapshotOf(line []byte) (*snapshot, error) {
	const offset = 7
	if err := wire.Check(line, &schema.PushRequest{}, schema.MaxDepth); err != nil {
		return nil, err
	}
	arena, err := secmem.New(offset + len(line))
	if err != nil {
		return nil, err
	}
	in := arena.Bytes()[offset:][:len(line)]
	copy(in, line)
	parsed, err := parsePush(in, offset)
	if err != nil {
		arena.Free()
		return nil, err
	}
	return parsed.snapshot(arena, time.Now())
}

// valuesOf decodes a snapshot's stored forms with encoding/json.
func valuesOf(t *testing.T, snap *snapshot) map[string]string {
	t.Helper()
	values := map[string]string{}
	for name, s := range snap.secrets {
		var text string
		if err := json.Unmarshal(snap.bytes(s), &text); err != nil {
			t.Fatalf("%s is stored as %s: %v", name, snap.bytes(s), err)
		}
		values[string(name)] = text
	}
	return values
}

// FuzzPush holds what is stored of any push that is taken against what
// encoding/json reads in it.
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
			return // would be two lines
		}
		snap, err := snapshotOf(line)
		if err != nil {
			return
		}
		defer snap.arena.Free()
		var want struct {
			Secrets    map[string]json.RawMessage `json:"secrets"`
			SecretsB64 map[string]string          `json:"secrets_b64"`
		}
		if err := json.Unmarshal(line, &want); err != nil {
			t.Fatalf("taken, and encoding/json says %v", err)
		}
		got := valuesOf(t, snap)
		if len(got) != len(want.Secrets)+len(want.SecretsB64) {
			t.Fatalf("%d secrets, want %d", len(got), len(want.Secrets)+len(want.SecretsB64))
		}
		for name, raw := range want.Secrets {
			var text string
			if json.Unmarshal(raw, &text) != nil { // a bundle
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
				t.Errorf("%s is %q, want %q, %v", name, got[name], text, err)
			}
		}
	})
}

// TestBundleSourceIsWiped sees that a bundle, which is stored rewritten, is not
// there a second time.
func TestBundleSourceIsWiped(t *testing.T) {
	snap, err := snapshotOf([]byte(`{"op":"push-creds","secrets":{"A":{"f":"TRIPWIRE"},"B":{"g":"` + string(bytes.Repeat([]byte("x"), 9000)) + `"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer snap.arena.Free()
	if n := bytes.Count(snap.arena.Bytes(), []byte("TRIPWIRE")); n != 1 {
		t.Errorf("%d copies in the arena", n)
	}
}

// TestKeyringWipes sees that the last reader wipes a replaced snapshot, and
// nobody before.
func TestKeyringWipes(t *testing.T) {
	k := newKeyring()
	first, err := snapshotOf([]byte(`{"secrets":{"A":"TRIPWIRE"}}`))
	if err != nil {
		t.Fatal(err)
	}
	second, err := snapshotOf([]byte(`{"secrets":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	k.replace(first)
	one, replaced := k.acquire()
	two, _ := k.acquire()
	k.replace(second)
	select {
	case <-replaced:
	default:
		t.Error("the readers were not told")
	}
	k.release(one)
	if first.arena.Bytes() == nil {
		t.Fatal("wiped under a reader")
	}
	if string(two.bytes(two.secrets["A"])) != `"TRIPWIRE"` {
		t.Error("a reader's bytes changed")
	}
	k.release(two)
	if first.arena.Bytes() != nil {
		t.Error("not wiped by the last reader")
	}
	if k.clear(); second.arena.Bytes() != nil {
		t.Error("not wiped by clear")
	}
}
