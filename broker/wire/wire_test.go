package wire

import (
	stdjson "encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// target has fields of the types that requests usually contain.
type target struct {
	Op     schema.Op           `json:"op"`
	Name   schema.SecretName   `json:"name"`
	Names  []schema.SecretName `json:"names,omitzero"`
	WaitMS int64               `json:"wait_ms,omitzero"`
	DryRun bool                `json:"dry_run,omitzero"`
	UIDs   []uint32            `json:"allow_uids,omitzero"`
	Text   *string             `json:"manifest,omitzero"`
	Bytes  []byte              `json:"bytes,omitzero"`
	Map    map[string]string   `json:"map,omitzero"`
	inlined
}

type inlined struct {
	Inner string `json:"inner,omitzero"`
}

// tripwire is a text in lines that Decode must refuse. No error may contain this text.
const tripwire = "TRIPWIRE"

func TestDecodeRefuses(t *testing.T) {
	const (
		syntax = "the line is not valid JSON in UTF-8"
		twice  = "duplicate name in an object"
		notObj = "the line is not a JSON object"
		more   = "unexpected data after the JSON object"
		deep   = "the JSON nesting is deeper than 3 levels"
	)
	wrong := func(field string) string { return `field "` + field + `" has the wrong type or is out of range` }
	for name, tc := range map[string]struct{ line, rule string }{
		"an empty line":                     {"", notObj},
		"white space":                       {" \t", notObj},
		"a word":                            {tripwire, notObj},
		"an array":                          {`["` + tripwire + `"]`, notObj},
		"a string":                          {`"` + tripwire + `"`, notObj},
		"null":                              {`null`, notObj},
		"a byte order mark":                 {"\xef\xbb\xbf" + `{"op":"` + tripwire + `"}`, notObj},
		"an object without an end":          {`{"op":"` + tripwire, syntax},
		"no closing brace":                  {`{"op":"` + tripwire + `"`, syntax},
		"a trailing comma":                  {`{"op":"` + tripwire + `",}`, syntax},
		"single quotes":                     {`{'op':'` + tripwire + `'}`, syntax},
		"a name without quotes":             {`{op:"` + tripwire + `"}`, syntax},
		"a comment":                         {`{/*` + tripwire + `*/"op":"x"}`, syntax},
		"a control character in a string":   {`{"op":"` + tripwire + "\t" + `"}`, syntax},
		"a NUL in a string":                 {`{"op":"` + tripwire + "\x00" + `"}`, syntax},
		"a bad escape":                      {`{"op":"\x` + tripwire + `"}`, syntax},
		"a bad literal":                     {`{"dry_run":True,"op":"` + tripwire + `"}`, syntax},
		"a leading zero":                    {`{"op":"` + tripwire + `","wait_ms":01}`, syntax},
		"NaN":                               {`{"op":"` + tripwire + `","wait_ms":NaN}`, syntax},
		"invalid UTF-8":                     {`{"op":"` + tripwire + "\xff" + `"}`, syntax},
		"an overlong UTF-8 form":            {`{"op":"` + tripwire + "\xc0\xaf" + `"}`, syntax},
		"a surrogate in UTF-8":              {`{"op":"` + tripwire + "\xed\xa0\x80" + `"}`, syntax},
		"a lone high surrogate":             {`{"op":"` + tripwire + `\ud800"}`, syntax},
		"a lone low surrogate":              {`{"op":"` + tripwire + `\udc00"}`, syntax},
		"surrogates in the wrong order":     {`{"op":"` + tripwire + `\udc00\ud800"}`, syntax},
		"invalid UTF-8 in a name":           {`{"` + tripwire + "\xff" + `":1}`, syntax},
		"invalid UTF-8 in an unknown field": {`{"x":{"y":"` + tripwire + "\xff" + `"}}`, syntax},

		"a duplicate name":                                  {`{"op":"` + tripwire + `","op":"y"}`, twice},
		"a duplicate name, once escaped":                    {`{"op":"` + tripwire + `","\u006fp":"y"}`, twice},
		"a duplicate name of an unknown field":              {`{"` + tripwire + `":1,"` + tripwire + `":2}`, twice},
		"a duplicate name in a nested object":               {`{"x":{"` + tripwire + `":1,"` + tripwire + `":2}}`, twice},
		"a duplicate name in a nested object, once escaped": {`{"x":{"` + tripwire + `":1,"\u0054RIPWIRE":2}}`, twice},

		"a name in another case":                               {`{"Op":"` + tripwire + `"}`, `a field name differs from "op" only in upper and lower case`},
		"an escaped name in another case":                      {`{"\u004fp":"` + tripwire + `"}`, `a field name differs from "op" only in upper and lower case`},
		"a name in another case after the correct name":        {`{"op":"` + tripwire + `","OP":"x"}`, `a field name differs from "op" only in upper and lower case`},
		"a name that is equal only under Unicode case folding": {`{"name\u017f":"` + tripwire + `"}`, `a field name differs from "names" only in upper and lower case`},
		"an embedded field in another case":                    {`{"INNER":"` + tripwire + `"}`, `a field name differs from "inner" only in upper and lower case`},

		"a second object":                 {`{"op":"` + tripwire + `"}{}`, more},
		"a second closing brace":          {`{"op":"` + tripwire + `"}}`, more},
		"text after the object":           {`{"op":"x"} ` + tripwire, more},
		"a second object after a newline": {"{\"op\":\"x\"}\n{\"op\":\"" + tripwire + "\"}", more},

		"depth 4":                {`{"a":{"b":{"c":{"` + tripwire + `":1}}}}`, deep},
		"depth 4, empty":         {`{"` + tripwire + `":{"b":{"c":{}}}}`, deep},
		"depth 4, arrays":        {`{"` + tripwire + `":[[[]]]}`, deep},
		"depth 4, second member": {`{"a":1,"` + tripwire + `":[1,{"c":[]}]}`, deep},
		"very deep":              {`{"` + tripwire + `":` + strings.Repeat("[", 20_000), deep},

		"a number for a string":                                  {`{"op":` + "1" + `,"name":"` + tripwire + `"}`, wrong("op")},
		"an object for a string":                                 {`{"op":{"x":"` + tripwire + `"}}`, wrong("op")},
		"a string for a list":                                    {`{"names":"` + tripwire + `"}`, wrong("names")},
		"a number in a list of strings":                          {`{"names":["` + tripwire + `",1]}`, wrong("names")},
		"a string for a number":                                  {`{"wait_ms":"` + tripwire + `"}`, wrong("wait_ms")},
		"a fraction":                                             {`{"wait_ms":1.5,"name":"` + tripwire + `"}`, wrong("wait_ms")},
		"a number that is out of range":                          {`{"wait_ms":9223372036854775808,"name":"` + tripwire + `"}`, wrong("wait_ms")},
		"a negative number for an unsigned field":                {`{"allow_uids":[-1],"name":"` + tripwire + `"}`, wrong("allow_uids")},
		"a string for a boolean":                                 {`{"dry_run":"` + tripwire + `"}`, wrong("dry_run")},
		"a number for a pointer":                                 {`{"manifest":1,"name":"` + tripwire + `"}`, wrong("manifest")},
		"a wrong type in a map, whose names come from the input": {`{"map":{"` + tripwire + `":1}}`, wrong("map")},
		"not base64":                                             {`{"bytes":"` + tripwire + `!"}`, wrong("bytes")},
		"base64 without padding":                                 {`{"bytes":"TRIPWIREQQ"}`, wrong("bytes")},
		"a wrong type in an embedded field":                      {`{"inner":["` + tripwire + `"]}`, wrong("inner")},
	} {
		t.Run(name, func(t *testing.T) {
			err := Decode([]byte(tc.line), &target{}, 3)
			if _, ok := err.(*Error); !ok {
				t.Fatalf("got %v, of type %T; want an *Error", err, err)
			}
			if err.Error() != tc.rule {
				t.Errorf("got %q, want %q", err, tc.rule)
			}
			if strings.Contains(err.Error(), tripwire) {
				t.Errorf("the error contains a part of the refused line: %v", err)
			}
		})
	}
}

func TestDecodeAccepts(t *testing.T) {
	text := ""
	for name, tc := range map[string]struct {
		line string
		want target
	}{
		"an empty object":                        {`{}`, target{}},
		"white space":                            {" {\t\"op\" :\r \"x\" } ", target{Op: "x"}},
		"unknown fields":                         {`{"op":"x","new":1,"other":{"op":[1]}}`, target{Op: "x"}},
		"another case in a nested object":        {`{"x":{"OP":1,"Op":2,"op":3}}`, target{}},
		"unknown names that differ only in case": {`{"x":1,"X":2}`, target{}},
		"an escaped name":                        {`{"\u006fp":"x"}`, target{Op: "x"}},
		"a surrogate pair":                       {`{"op":"\ud83d\ude00"}`, target{Op: "😀"}},
		"unicode":                                {`{"op":"é"}`, target{Op: "é"}},
		"null counts as absent":                  {`{"op":"x","names":null,"wait_ms":null,"manifest":null}`, target{Op: "x"}},
		"depth 3":                                {`{"names":["a"],"x":{"y":{"z":1}}}`, target{Names: []schema.SecretName{"a"}}},
		"an empty text":                          {`{"manifest":""}`, target{Text: &text}},
		"empty bytes":                            {`{"bytes":""}`, target{Bytes: []byte{}}},
		"bytes":                                  {`{"bytes":"AP8="}`, target{Bytes: []byte{0, 0xff}}},
		"an embedded field":                      {`{"inner":"x"}`, target{inlined: inlined{"x"}}},
	} {
		t.Run(name, func(t *testing.T) {
			var got target
			if err := Decode([]byte(tc.line), &got, 3); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestDecodeEnforcesDepth(t *testing.T) {
	line := []byte(`{"a":{"b":{"c":{}}}}`)
	for depth := 1; depth <= 5; depth++ {
		if err := Decode(line, &target{}, depth); (err == nil) != (depth >= 4) {
			t.Errorf("Decode of a line of depth 4 with a limit of %d returned %v", depth, err)
		}
	}
}

func TestDecodeDoesNotChangeLine(t *testing.T) {
	const text = `{"op":"\u0078","x":["a\/b"],"bytes":"AP8="}`
	line := []byte(text)
	if err := Decode(line, &target{}, 3); err != nil || string(line) != text {
		t.Errorf("Decode changed the line to %s, error %v", line, err)
	}
}

// TestEncode checks that Encode writes exactly one line, and that Decode can decode this
// line to the same value.
func TestEncode(t *testing.T) {
	request := schema.GetRequest{Op: schema.OpGet, Name: "A", WaitMS: 5}
	line, err := Encode(request)
	if err != nil || string(line) != `{"op":"get","name":"A","wait_ms":5}`+"\n" {
		t.Fatalf("got %s, %v", line, err)
	}
	var got schema.GetRequest
	if err := Decode(line[:len(line)-1], &got, 3); err != nil || got != request {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if _, err := Encode(schema.GetRequest{Op: "\xff"}); err == nil {
		t.Error("Encode accepts invalid UTF-8")
	}
	line, err = Encode(schema.ErrorResponse{Message: "two\nlines"})
	if err != nil || strings.Count(string(line), "\n") != 1 {
		t.Errorf("Encode returned %q, which is not one line, error %v", line, err)
	}
}

// FuzzDecode compares Decode with encoding/json. If Decode accepts a line, encoding/json must
// also accept the line, and both must decode the same values.
func FuzzDecode(f *testing.F) {
	for _, line := range []string{
		`{}`, `{"op":"get","name":"A","wait_ms":5}`, `{"op":"x","op":"y"}`, `{"Op":"x"}`, "{\"op\":\"\xff\"}",
		`{"op":"\ud800"}`, `{"x":{"y":{"z":{}}}}`, `{} {}`, `{"names":["a","b"],"allow_uids":[0,4294967295]}`,
		`{"bytes":"AP8=","manifest":"a\nb","inner":"\u00e9"}`, `{"wait_ms":-0}`, `{"wait_ms":null}`, `{"bytes":"A\nP8="}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var got, want target
		before := string(line)
		err := Decode(line, &got, 3)
		if string(line) != before {
			t.Fatalf("Decode changed the line")
		}
		if err != nil {
			if _, ok := err.(*Error); !ok {
				t.Fatalf("the error has type %T, want *Error", err)
			}
			return
		}
		if err := stdjson.Unmarshal(line, &want); err != nil {
			t.Fatalf("Decode accepts %q, but encoding/json fails: %v", line, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("Decode of %q returned %+v, but encoding/json returned %+v", line, got, want)
		}
		encoded, err := Encode(got)
		if err != nil {
			t.Fatalf("cannot encode the decoded value: %v", err)
		}
		var again target
		if err := Decode(encoded[:len(encoded)-1], &again, 3); err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("%q was encoded as %q, which does not decode to the same value: %v", line, encoded, err)
		}
	})
}
