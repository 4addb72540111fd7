package wire

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestParsePushAcceptsUsualForms(t *testing.T) {
	for line, want := range map[string]string{
		`{"op":"push-creds","secrets":{}}`:                                                               "",
		`{"op":"push-creds","secrets_b64":{},"exclusive":false}`:                                         "",
		`{"secrets":{"A":"x"},"op":"push-creds","exclusive":true}`:                                       `A="x" exclusive`,
		`{"op":"push-creds","secrets_b64":{"A":"AP8="},"secrets":{"B":"x"}}`:                             `A="AP8=" binary, B="x"`,
		`{"op":"push-creds","secrets":{"A":{},"B":{"u":"{\"","p":"}"},"C":""}}`:                          `A={}, B={"u":"{\"","p":"}"}, C=""`,
		"\t{ \"op\" :\"push-creds\" ,\r\"secrets\" : { \"A\" : { \"u\" : \"x\" } , \"B\" : \"\" } } ":    `A={ "u" : "x" }, B=""`,
		`{"op":"push-creds","secrets":{"A":"\"\\\/\b\f\n\r\t\u00e9\uABcd\ud83d\ude00é😀` + "\x7f" + `"}}`: `A="\"\\\/\b\f\n\r\t\u00e9\uABcd\ud83d\ude00é😀` + "\x7f" + `"`,
	} {
		secrets, exclusive, ok := ParsePush([]byte(line), 1)
		var got []string
		for _, secret := range secrets {
			got = append(got, fmt.Sprintf("%s=%s", secret.Name, secret.Value))
			if secret.Binary {
				got[len(got)-1] += " binary"
			}
		}
		text := strings.Join(got, ", ")
		if exclusive {
			text += " exclusive"
		}
		if !ok || text != want {
			t.Errorf("ParsePush of %q returned %s, %v; want %s", line, text, ok, want)
		}
	}
}

func TestParsePushLeavesUnusualLinesToDecode(t *testing.T) {
	lines := []string{
		``, `{`, `{}`, `null`, `{"op":"push-creds"}`, `{"secrets":{}}`, `{"op":"ping","secrets":{}}`, `{"op":"push-creds","op":"push-creds","secrets":{}}`,
		`{"op":"push-creds","secrets":{},"secrets":{}}`, `{"op":"push-creds","secrets_b64":{},"secrets_b64":{}}`,
		`{"op":"push-creds","secrets":{}`, `{"op":"push-creds","secrets":{},}`, `{"op":"push-creds","secrets":{}}}`, `{"op":"push-creds" "secrets":{}}`,
		`{"op":"push-creds","secrets":null}`, `{"op":"push-creds","secrets":[]}`, `{"op":"push-creds","Secrets":{}}`, `{"op":"push-creds","secrets":{},"new":1}`,
		`{"op":"push-creds","secrets":{},"exclusive":null}`, `{"op":"push-creds","secrets":{},"exclusive":True}`, `{"op":"push-creds","secrets":{},"exclusive":truefalse}`,
		`{"op":"push-creds","secrets":{},"exclusive":true,"exclusive":true}`, `{"op":"push-creds","secrets":{},"exclusive":`, `{"\u006fp":"push-creds","secrets":{}}`,
		`{"op":"push-creds","secrets_b64":{"A":{}}}`,
	}
	for _, members := range []string{
		`,`, `"A"`, `"A":`, `"A":"x",`, `"A":"x"}`, `"A" "x"`, `"A":1`, `"A":null`, `"A":["x"]`, `"A":"x" "B":"y"`, `"-A":"x"`, `"\u0041":"x"`, `"é":"x"`,
		`"A":{`, `"A":{"u"`, `"A":{"u":1}`, `"A":{"u":{}}`, `"A":{"u":"x",}`, `"A":{"u":"x","u":"x"}`, `"A":{"-":"x"}`, `"A":{"u":"x"`,
		`"A":"x`, `"A":"\`, `"A":"\"`, `"A":"\x"`, `"A":"\u"`, `"A":"\u123"`, `"A":"\u12g4"`, `"A":"\ud83d"`, `"A":"\ude00"`, `"A":"\ud83dx"`,
		`"A":"\ud83d\n"`, `"A":"\ud83d\u0041"`, `"A":"\ud83d\ud83d"`, `"A":"\ud83d\u"`,
		"\"A\":\"\x00\"", "\"A\":\"\x1f\"", "\"A\":\"12345678\t\"", "\"A\":\"\xff\"", "\"A\":\"\xc0\xaf\"", "\"A\":\"\xed\xa0\x80\"", "\"A\":\"\xc3",
	} {
		lines = append(lines, `{"op":"push-creds","secrets":{`+members+`}}`)
	}
	for _, line := range lines {
		if secrets, exclusive, ok := ParsePush([]byte(line), 1); ok || secrets != nil || exclusive {
			t.Errorf("ParsePush of %q returned %d secrets, %v, %v", line, len(secrets), exclusive, ok)
		}
	}
}

// TestPlainLength puts each byte value at each position of a text of 20 bytes, with different
// bytes after it. PlainLength must stop at the first byte that is not plain.
func TestPlainLength(t *testing.T) {
	for value := range 256 {
		c := byte(value)
		isPlain := ' ' <= c && c <= '~' && c != '"' && c != '\\' || c == 0x7f
		for position := range 20 {
			text := bytes.Repeat([]byte("!"), 20)
			text[position] = c
			for _, following := range []byte("!\"#[\\]\x00\x01\x1f\x7f\x80\xff") {
				want := 20
				if position+1 < len(text) {
					if text[position+1] = following; strings.IndexByte("!#[]\x7f", following) < 0 {
						want = position + 1
					}
				}
				if !isPlain {
					want = position
				}
				if got := PlainLength(text); got != want {
					t.Fatalf("PlainLength of %q returned %d, want %d", text, got, want)
				}
			}
		}
	}
}
