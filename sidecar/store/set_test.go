package store_test

import (
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

func textValue(text string) store.Value { return store.Value{Bytes: []byte(text)} }

func bundleValue(texts map[schema.SecretName]string) store.Value {
	fields := map[schema.SecretName][]byte{}
	for field, text := range texts {
		fields[field] = []byte(text)
	}
	return store.Value{Fields: fields}
}

func TestEncodePushRefusesTooLargeSet(t *testing.T) {
	escaped := store.Set{"A": textValue(strings.Repeat("\x01", schema.MaxPush/3))}
	if _, err := escaped.EncodePush(); err == nil || !strings.Contains(err.Error(), "but the maximum size of a push is 1048576 bytes") {
		t.Errorf("EncodePush of a set that is too large after JSON escaping: got the error %v; want an error about the maximum size", err)
	}
	escaped["B"], escaped["C"] = textValue("ab"), textValue("a")
	if _, err := escaped.EncodePush(); err == nil || !strings.HasSuffix(err.Error(), "B (2 bytes), C (1 byte)") {
		t.Errorf("EncodePush of a set with a value of one byte: got the error %v", err)
	}
	if _, err := (store.Set{}).EncodePush(); err != nil {
		t.Error(err)
	}
}

func TestEncodePushLine(t *testing.T) {
	for _, c := range []struct {
		set  store.Set
		line string
	}{
		{store.Set{}, `{"op":"push-creds","secrets":{},"secrets_b64":{},"exclusive":true}`},
		{store.Set{
			"B":   textValue("<\x01\"é"),
			"A":   {Bytes: []byte("\xff\x00"), Binary: true},
			"C":   {Bytes: []byte("text"), Binary: true}, // a YAML value with the tag !!binary
			"aws": bundleValue(map[schema.SecretName]string{"secret": "s", "key": "k"}),
			"e":   bundleValue(nil),
		}, `{"op":"push-creds","secrets":{"B":"<\u0001\"é","aws":{"key":"k","secret":"s"},"e":{}},"secrets_b64":{"A":"/wA=","C":"dGV4dA=="},"exclusive":true}`},
	} {
		line, err := c.set.EncodePush()
		if err != nil || string(line) != c.line+"\n" {
			t.Errorf("got %s, %v; want %s", line, err, c.line)
		}
	}
}
