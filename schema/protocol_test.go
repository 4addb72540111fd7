package schema_test

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// TestProtocolDocumentsEveryName checks that PROTOCOL.md mentions every op, code, audit
// event, kind of memory, state of the descriptor store, and limit, and the patterns of
// secret names and project names.
func TestProtocolDocumentsEveryName(t *testing.T) {
	text := readProtocol(t)
	for _, operations := range [][]schema.Operation{schema.AdminOperations, schema.ProjectOperations} {
		for _, op := range operations {
			checkMentions(t, text, fmt.Sprintf("\n### %s\n", op.Op))
		}
	}
	for _, code := range schema.Codes {
		checkMentions(t, text, fmt.Sprintf("\n| `%s` |", code))
	}
	for _, event := range schema.AuditEvents {
		checkMentions(t, text, fmt.Sprintf("\n| `%s` |", event.Name))
	}
	for _, memory := range schema.MemoryKinds {
		checkMentions(t, text, fmt.Sprintf("`%s`", memory))
	}
	for _, state := range schema.DescriptorStores {
		checkMentions(t, text, fmt.Sprintf("`%s`", state))
	}
	checkMentions(t, text, "`"+schema.SecretNamePattern+"`")
	checkMentions(t, text, "`"+schema.ProjectNamePattern+"`")
	checkMentions(t, text, "`"+schema.AdminTokenPattern+"`")
	for limit, value := range map[string]string{
		"MaxRequest":            fmt.Sprintf("%d bytes", schema.MaxRequest),
		"MaxPush":               fmt.Sprintf("%d bytes", schema.MaxPush),
		"MaxAuth":               fmt.Sprintf("%d bytes", schema.MaxAuth),
		"MaxUnauthorized":       fmt.Sprint(schema.MaxUnauthorized),
		"AuthTimeout":           fmt.Sprintf("%d s", int(schema.AuthTimeout.Seconds())),
		"MaxResponse":           fmt.Sprintf("%d bytes", schema.MaxResponse),
		"MaxDepth":              fmt.Sprint(schema.MaxDepth),
		"MaxResponseDepth":      fmt.Sprint(schema.MaxResponseDepth),
		"MaxManifest":           fmt.Sprintf("%d bytes", schema.MaxManifest),
		"MaxDescription":        fmt.Sprintf("%d characters", schema.MaxDescription),
		"MaxWait":               fmt.Sprintf("%d ms", schema.MaxWait.Milliseconds()),
		"MaxProjectConnections": fmt.Sprint(schema.MaxProjectConnections),
		"MaxAdminConnections":   fmt.Sprint(schema.MaxAdminConnections),
		"LineTimeout":           fmt.Sprintf("%d s", int(schema.LineTimeout.Seconds())),
		"WriteTimeout":          fmt.Sprintf("%d s", int(schema.WriteTimeout.Seconds())),
		"IdleTimeout":           fmt.Sprintf("%d s", int(schema.IdleTimeout.Seconds())),
	} {
		checkMentions(t, text, fmt.Sprintf("`%s` | %s", limit, value))
	}
	checkMentions(t, text, fmt.Sprintf("nests deeper than %d objects", schema.MaxDepth))
	checkMentions(t, text, fmt.Sprintf("`wait_ms` (0 to %d)", schema.MaxWait.Milliseconds()))
	checkMentions(t, text, fmt.Sprintf("`protocol_version` is not %d", schema.ProtocolVersion))
}

func readProtocol(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// checkMentions checks that text contains phrase, and that no digit follows phrase.
// Otherwise a longer number would also match.
func checkMentions(t *testing.T, text, phrase string) {
	t.Helper()
	for rest := text; ; {
		_, after, found := strings.Cut(rest, phrase)
		if !found {
			t.Errorf("PROTOCOL.md does not contain %q", strings.TrimSpace(phrase))
			return
		}
		if after == "" || after[0] < '0' || after[0] > '9' {
			return
		}
		rest = after
	}
}

// TestProtocolExamplesAreValid checks the examples in PROTOCOL.md against the JSON Schema
// and against the codec in package wire. Each block of JSON contains a request with its
// response, a single response, or an event.
func TestProtocolExamplesAreValid(t *testing.T) {
	v := newValidator(t, "keyhatch.v2.json")
	socket, answered := "", map[string]bool{}
	var block []string
	inBlock := false
	for lineNumber, line := range strings.Split(readProtocol(t), "\n") {
		switch {
		case strings.HasPrefix(line, "## "):
			socket = map[string]string{"## Project ops": "project", "## Admin ops": "admin"}[line]
		case line == "```json":
			inBlock, block = true, nil
		case line == "```" && inBlock:
			inBlock = false
			checkExample(t, v, lineNumber, socket, block, answered)
		case inBlock:
			block = append(block, line)
		}
	}
	for socket, operations := range map[string][]schema.Operation{"admin": schema.AdminOperations, "project": schema.ProjectOperations} {
		for _, op := range operations {
			if !answered[socket+" "+string(op.Op)] {
				t.Errorf("PROTOCOL.md has no example of a response to %s on the %s socket", op.Op, socket)
			}
		}
	}
}

func checkExample(t *testing.T, v *validator, lineNumber int, socket string, block []string, answered map[string]bool) {
	t.Helper()
	for _, line := range block {
		if strings.HasPrefix(line, `{"op":`) && len(block) != 2 {
			t.Errorf("PROTOCOL.md:%d: a block with a request must also contain exactly one response", lineNumber)
		}
	}
	switch {
	case len(block) == 2:
		var request schema.Request
		if err := wire.Decode([]byte(block[0]), &request, schema.MaxDepth); err != nil {
			t.Errorf("PROTOCOL.md:%d: %v", lineNumber, err)
		}
		operation := findOperation(socket, request.Op)
		if operation == nil {
			t.Fatalf("PROTOCOL.md:%d: there is no op %[3]q on the socket %[2]q", lineNumber, socket, request.Op)
		}
		// wire.Decode cannot decode a push request, because schema.Value has no decoder.
		if request.Op != schema.OpPush {
			checkRoundTrip(t, lineNumber, block[0], operation.Request, schema.MaxDepth)
		}
		v.checkLine(t, lineNumber, block[0], operation.Request)
		if strings.HasPrefix(block[1], `{"ok":false`) {
			checkRoundTrip(t, lineNumber, block[1], schema.ErrorResponse{}, schema.MaxResponseDepth)
			v.checkLine(t, lineNumber, block[1], schema.ErrorResponse{})
			return
		}
		checkRoundTrip(t, lineNumber, block[1], operation.Response, schema.MaxResponseDepth)
		v.checkLine(t, lineNumber, block[1], operation.Response)
		answered[socket+" "+string(request.Op)] = true
	case len(block) == 1 && strings.HasPrefix(block[0], `{"ok":false`):
		v.checkLine(t, lineNumber, block[0], schema.ErrorResponse{})
	case len(block) == 1:
		for _, event := range schema.AuditEvents {
			if strings.Contains(block[0], fmt.Sprintf(`"event":"%s"`, event.Name)) {
				checkRoundTrip(t, lineNumber, block[0], event.Event, schema.MaxDepth)
				v.checkLine(t, lineNumber, block[0], event.Event)
				return
			}
		}
		if strings.HasPrefix(block[0], `{"event":"`+schema.WatchEventChanged+`"`) {
			line := schema.StreamEvents[schema.OpWatch]
			checkRoundTrip(t, lineNumber, block[0], line, schema.MaxResponseDepth)
			v.checkLine(t, lineNumber, block[0], line)
			return
		}
		t.Errorf("PROTOCOL.md:%d: the example is not a response or an event", lineNumber)
	default:
		t.Errorf("PROTOCOL.md:%d: the block has %d lines, want 1 or 2", lineNumber, len(block))
	}
}

func findOperation(socket string, op schema.Op) *schema.Operation {
	operations := map[string][]schema.Operation{"admin": schema.AdminOperations, "project": schema.ProjectOperations}
	for _, operation := range operations[socket] {
		if operation.Op == op {
			return &operation
		}
	}
	return nil
}

// checkRoundTrip checks that a line has the same length after it was decoded and encoded
// again. A field whose name is misspelled would be missing in the encoded line.
func checkRoundTrip(t *testing.T, lineNumber int, line string, messageType any, depth int) {
	t.Helper()
	v := reflect.New(reflect.TypeOf(messageType))
	if err := wire.Decode([]byte(line), v.Interface(), depth); err != nil {
		t.Errorf("PROTOCOL.md:%d: %v", lineNumber, err)
		return
	}
	encoded, err := wire.Encode(v.Interface())
	if err != nil || len(encoded) != len(line)+1 { // compare only lengths, because the order of map keys can differ
		t.Errorf("PROTOCOL.md:%d: the decoded line is encoded again as %s, error %v", lineNumber, encoded, err)
	}
}
