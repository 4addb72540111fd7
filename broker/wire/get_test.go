package wire

import (
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

func TestParseGetAcceptsUsualForms(t *testing.T) {
	for line, want := range map[string]schema.GetRequest{
		`{"op":"get","name":"A"}`:                                {Name: "A"},
		`{"name":"A.b-c_9","op":"get"}`:                          {Name: "A.b-c_9"},
		`{"op":"get","name":"A","wait_ms":15000}`:                {Name: "A", WaitMS: 15000},
		`{"wait_ms":0,"op":"get","name":"A"}`:                    {Name: "A"},
		`{"op":"get","name":"A","wait_ms":999999999999999999}`:   {Name: "A", WaitMS: 999999999999999999},
		"\t { \"op\" : \"get\" ,\r\"name\" : \"A\" } ":           {Name: "A"},
		`{"op":"get","name":"` + strings.Repeat("A", 128) + `"}`: {Name: schema.SecretName(strings.Repeat("A", 128))},
	} {
		name, waitMS, ok := ParseGet([]byte(line))
		if !ok || schema.SecretName(name) != want.Name || waitMS != want.WaitMS {
			t.Errorf("ParseGet of %q returned %q, %d, %v", line, name, waitMS, ok)
		}
	}
}

func TestParseGetLeavesUnusualLinesToDecode(t *testing.T) {
	for _, line := range []string{
		``, `{`, `{}`, `null`, `{"op":"get"}`, `{"name":"A"}`, `{"op":"get-many"}`, `{"op":"ping","name":"A"}`,
		`{"op":"get","name":"A"`, `{"op":"get","name":"A",}`, `{"op":"get","name":"A"}}`, `{"op":"get","name":"A"} x`,
		`{,"op":"get","name":"A"}`, `{"op":"get" "name":"A"}`, `{"op":"get","name":"A","name":"A"}`,
		`{"op":"get","op":"get","name":"A"}`, `{"op":"get","name":"A","wait_ms":1,"wait_ms":1}`,
		`{"Op":"get","name":"A"}`, `{"op":"get","name":"A","new":1}`, `{"op":"get","name":"-A"}`, `{"op":"get","name":""}`,
		`{"\u006fp":"get","name":"A"}`, `{"op":"get","name":"\u0041"}`, `{"op":"get","name":"é"}`, "{\"op\":\"get\",\"name\":\"\xff\"}",
		`{"op":"get","name":null}`, `{"op":"get","name":"A","wait_ms":null}`, `{"op":"get","name":"A","wait_ms":-1}`,
		`{"op":"get","name":"A","wait_ms":01}`, `{"op":"get","name":"A","wait_ms":1.5}`, `{"op":"get","name":"A","wait_ms":1e3}`,
		`{"op":"get","name":"A","wait_ms":}`, `{"op":"get","name":"A","wait_ms":9223372036854775808}`, `{"op":"get","name":"A","wait_ms":"1"}`,
		`{"op":"get","name":"` + strings.Repeat("A", 129) + `"}`,
	} {
		if name, waitMS, ok := ParseGet([]byte(line)); ok || name != nil || waitMS != 0 {
			t.Errorf("ParseGet of %q returned %q, %d, %v", line, name, waitMS, ok)
		}
	}
}

// FuzzParseGet compares ParseGet with Decode. If ParseGet accepts a line, Decode must also
// accept the line, and both must return the same values.
func FuzzParseGet(f *testing.F) {
	for _, line := range []string{
		`{"op":"get","name":"A"}`, `{"name":"A","op":"get","wait_ms":15000}`, " {\t\"op\" : \"get\" ,\r\"name\":\"A\"} ",
		`{"op":"get","name":"A","name":"B"}`, `{"op":"get","name":"\u0041"}`, `{"op":"get","name":"A","new":[{}]}`,
		`{"op":"get","name":"A","wait_ms":-0}`, `{"op":"get","name":"A","wait_ms":00}`, `{"op":"get","name":"A","Name":"B"}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		before := string(line)
		name, waitMS, ok := ParseGet(line)
		if string(line) != before {
			t.Fatal("ParseGet changed the line")
		}
		if !ok {
			return
		}
		var request schema.Request
		if err := Decode(line, &request, schema.MaxDepth); err != nil || request.Op != schema.OpGet {
			t.Fatalf("ParseGet accepts %q, but Decode returned the op %q, error %v", line, request.Op, err)
		}
		var get schema.GetRequest
		if err := Decode(line, &get, schema.MaxDepth); err != nil || !schema.ValidSecretName(get.Name) ||
			get.Name != schema.SecretName(name) || get.WaitMS != waitMS {
			t.Fatalf("ParseGet of %q returned %q and %d, but Decode returned %+v, error %v", line, name, waitMS, get, err)
		}
	})
}

func BenchmarkParseGet(b *testing.B) {
	line := []byte(`{"op":"get","name":"GITHUB_TOKEN"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := ParseGet(line); !ok {
			b.Fatal("ParseGet refuses the line")
		}
	}
}
