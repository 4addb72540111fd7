package broker_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write the broker's answers to testdata/conversation.txt")

// TestConversationMatchesGoldenFile sends valid and invalid requests of every op to a
// broker. It compares the answers with the golden answers in testdata/conversation.txt. It
// validates every answer, and every request that succeeded, against the JSON Schema.
//
// The requests are in the same file. The test sends REQUEST to the admin socket for a line
// "admin> REQUEST", and to the socket of the project api for a line "api> REQUEST". It uses
// one connection for all requests to a socket, until this connection ends. For a line
// "admin+> REQUEST" or "api+> REQUEST", the test sends REQUEST on a second connection. For a
// line "token> REQUEST", the test sends REQUEST to the admin socket of a second broker, which
// requires an admin token. For a line "api+", the test reads the next line of the watch on the
// second connection to api. For a line "admin+", the test reads the next event on the second
// connection to the admin socket. It skips secrets.fetched, which the broker can delay. The golden
// file contains * in place of each value that differs between two runs.
func TestConversationMatchesGoldenFile(t *testing.T) {
	golden := filepath.Join("testdata", "conversation.txt")
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t)
	withToken, tokenFile := newServerWithToken(t)
	token := readToken(t, tokenFile)
	validator := newValidator(t)
	conns := map[string]*rawConn{}
	seen := map[string]bool{}
	var got bytes.Buffer
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "< ") {
			continue
		}
		got.WriteString(line + "\n")
		if streaming := conns[line]; streaming != nil {
			answer := readEvent(t, streaming)
			validator.validate(t, eventType(t, answer), answer)
			got.WriteString("< " + maskVarying(answer, s.dir) + "\n")
			continue
		}
		socket, request, ok := strings.Cut(line, "> ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		path := s.adminSocket
		if name := strings.TrimSuffix(socket, "+"); name == "token" {
			path = withToken.adminSocket
		} else if name != "admin" {
			path = s.projectSocket(name)
		}
		if conns[socket] == nil {
			conns[socket] = connect(t, path)
		}
		request = strings.ReplaceAll(request, "(the token)", token)
		answer := conns[socket].request(t, expandPlaceholders(request))
		validator.check(t, strings.TrimSuffix(socket, "+"), expandPlaceholders(request), answer, seen)
		answer = maskVarying(maskVarying(answer, s.dir), withToken.dir)
		if strings.Contains(answer, "payload_too_large") || strings.Contains(answer, "unauthorized") || strings.Contains(answer, "no other request is allowed") {
			if conns[socket].readLine(t) != "" {
				t.Errorf("the connection stays open after the answer to %s", line)
			}
			delete(conns, socket)
		}
		got.WriteString("< " + answer + "\n")
	}
	checkComplete(t, seen)
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want := strings.Split(string(text), "\n")
	for i, line := range strings.Split(got.String(), "\n") {
		if i >= len(want) || line != want[i] {
			t.Fatalf("line %d of testdata/conversation.txt differs; if the new answer is correct, run go test ./broker -run Conversation -update:\n got %s\nwant %s", i+1, line, strings.Join(want[i:min(i+1, len(want))], ""))
		}
	}
}

// readEvent returns the next line of a watch or of an event stream. It skips the audit event
// secrets.fetched.
func readEvent(t *testing.T, c *rawConn) string {
	t.Helper()
	for {
		if line := c.readLine(t); !strings.Contains(line, `"event":"secrets.fetched"`) {
			return line
		}
	}
}

// eventType returns a zero value of the Go type that describes this line of a watch or of an event
// stream.
func eventType(t *testing.T, line string) any {
	t.Helper()
	var header schema.EventHeader
	if err := json.Unmarshal([]byte(line), &header); err != nil {
		t.Fatalf("the event %q is not JSON: %v", line, err)
	}
	for _, event := range schema.AuditEvents {
		if event.Name == header.Event {
			return event.Event
		}
	}
	return schema.ChangedEvent{}
}

// checkComplete checks that the conversation contains a successful request and a refused
// request of each operation. ping is an exception, because the broker refuses a ping only
// if the line is malformed.
func checkComplete(t *testing.T, seen map[string]bool) {
	t.Helper()
	for _, ops := range [][]schema.Operation{schema.AdminOperations, schema.ProjectOperations} {
		for _, op := range ops {
			if !seen[string(op.Op)+" ok"] {
				t.Errorf("testdata/conversation.txt has no successful %s: add a line with such a request", op.Op)
			}
			if !seen[string(op.Op)+" error"] && op.Op != schema.OpPing {
				t.Errorf(`testdata/conversation.txt has no refused %s: add a line with such a request, for example {"op":"%s","x":"(bad UTF-8)"}`, op.Op, op.Op)
			}
		}
	}
}

// expandPlaceholders replaces the placeholders in a request with very long texts, with invalid
// UTF-8, or with the current time. A golden file should not contain such texts.
func expandPlaceholders(request string) string {
	request = strings.ReplaceAll(request, "(64 KiB)", strings.Repeat("x", schema.MaxRequest))
	request = strings.ReplaceAll(request, "(1 MiB)", strings.Repeat("x", schema.MaxPush))
	request = strings.ReplaceAll(request, "(now)", time.Now().UTC().Format(time.RFC3339Nano))
	return strings.ReplaceAll(request, "(bad UTF-8)", "\xff")
}

var varyingFields = regexp.MustCompile(`("(?:instance_id|loaded_at|secrets_loaded_at|secrets_cleared_at|memory|manifest_sha256|time)":)"[^"]*"|("(?:uptime_seconds|admin_connections|first|sidecar_pid|peer_uid|peer_gid|peer_pid)":)\d+`)

var varyingCaller = regexp.MustCompile(`\(uid \d+, pid \d+\)`)

func maskVarying(answer, dir string) string {
	answer = strings.ReplaceAll(answer, dir+"/run", "DIR")
	answer = varyingCaller.ReplaceAllString(answer, "(uid *, pid *)")
	return varyingFields.ReplaceAllString(answer, "$1$2*")
}

// A validator validates messages against the generated JSON Schema.
type validator struct {
	compiler *jsonschema.Compiler
	types    map[string]map[schema.Op]schema.Operation
}

func newValidator(t *testing.T) *validator {
	t.Helper()
	v := &validator{jsonschema.NewCompiler(), map[string]map[schema.Op]schema.Operation{"admin": {}, "token": {}, "api": {}}}
	document, err := os.Open("../schema/keyhatch.v2.json")
	if err != nil {
		t.Fatal(err)
	}
	defer document.Close()
	parsed, err := jsonschema.UnmarshalJSON(document)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.compiler.AddResource("keyhatch.v2.json", parsed); err != nil {
		t.Fatal(err)
	}
	for _, op := range schema.AdminOperations {
		v.types["admin"][op.Op] = op
		v.types["token"][op.Op] = op
	}
	for _, op := range schema.ProjectOperations {
		v.types["api"][op.Op] = op
	}
	return v
}

func (v *validator) check(t *testing.T, socket, request, answer string, seen map[string]bool) {
	t.Helper()
	var op schema.Request
	json.Unmarshal([]byte(request), &op)
	var outcome schema.OKResponse
	if err := json.Unmarshal([]byte(answer), &outcome); err != nil {
		t.Fatalf("%s: the answer is not JSON: %s", request, answer)
	}
	if !outcome.OK {
		seen[string(op.Op)+" error"] = true
		v.validate(t, schema.ErrorResponse{}, answer)
		return
	}
	seen[string(op.Op)+" ok"] = true
	operation := v.types[socket][op.Op]
	v.validate(t, operation.Request, request)
	v.validate(t, operation.Response, answer)
}

func (v *validator) validate(t *testing.T, goType any, message string) {
	t.Helper()
	compiled, err := v.compiler.Compile("keyhatch.v2.json#/$defs/" + typeName(goType))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(message))
	if err == nil {
		err = compiled.Validate(parsed)
	}
	if err != nil {
		t.Errorf("%s is not a valid %s: %v", message, typeName(goType), err)
	}
}

func typeName(v any) string { return strings.TrimPrefix(reflect.TypeOf(v).String(), "schema.") }
