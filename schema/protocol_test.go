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

// PROTOCOL.md is written by hand, so what it says is held against the tables,
// and its examples against the schema and the codec.
func TestProtocolNamesEverything(t *testing.T) {
	text := protocol(t)
	for _, operations := range [][]schema.Operation{schema.AdminOperations, schema.ProjectOperations} {
		for _, op := range operations {
			mentions(t, text, fmt.Sprintf("\n### %s\n", op.Op))
			for _, fields := range []any{op.Request, op.Response, schema.Streams[op.Op]} {
				if fields == nil {
					continue
				}
				for field := range reflect.TypeOf(fields).Fields() {
					if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" && !strings.Contains(text, `"`+name+`"`) {
						t.Errorf("PROTOCOL.md has no example with the field %s of %s", name, op.Op)
					}
				}
			}
		}
	}
	for _, code := range schema.Codes {
		mentions(t, text, fmt.Sprintf("\n| `%s` |", code))
	}
	for _, event := range schema.AuditEvents {
		mentions(t, text, fmt.Sprintf("\n| `%s` |", event.Name))
	}
	for _, memory := range schema.Memories {
		mentions(t, text, fmt.Sprintf("`%s`", memory))
	}
	for _, state := range schema.DescriptorStores {
		mentions(t, text, fmt.Sprintf("`%s`", state))
	}
	mentions(t, text, "`"+schema.SecretNamePattern+"`")
	mentions(t, text, "`"+schema.ProjectNamePattern+"`")
	for limit, value := range map[string]string{
		"MaxRequest":            fmt.Sprintf("%d bytes", schema.MaxRequest),
		"MaxPush":               fmt.Sprintf("%d bytes", schema.MaxPush),
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
		mentions(t, text, fmt.Sprintf("`%s` | %s", limit, value))
	}
	mentions(t, text, fmt.Sprintf("nests deeper than %d objects", schema.MaxDepth))
	mentions(t, text, fmt.Sprintf("`wait_ms` (0 to %d)", schema.MaxWait.Milliseconds()))
	mentions(t, text, fmt.Sprintf("`protocol_version` is not %d", schema.ProtocolVersion))
}

func protocol(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// mentions looks for what, which must not run on into a longer number.
func mentions(t *testing.T, text, what string) {
	t.Helper()
	for rest := text; ; {
		_, after, found := strings.Cut(rest, what)
		if !found {
			t.Errorf("PROTOCOL.md does not say %q", strings.TrimSpace(what))
			return
		}
		if after == "" || after[0] < '0' || after[0] > '9' {
			return
		}
		rest = after
	}
}

// Each block of JSON is either a request and its answer, an answer, or an event.
func TestProtocolExamples(t *testing.T) {
	check := newValidator(t, "keyhatch.v2.json")
	socket, seen := "", map[string]bool{}
	var block []string
	inside := false
	for number, line := range strings.Split(protocol(t), "\n") {
		switch {
		case strings.HasPrefix(line, "## "):
			socket = map[string]string{"## Project ops": "project", "## Admin ops": "admin"}[line]
		case line == "```json":
			inside, block = true, nil
		case line == "```" && inside:
			inside = false
			example(t, check, number, socket, block, seen)
		case inside:
			block = append(block, line)
		}
	}
	for socket, operations := range map[string][]schema.Operation{"admin": schema.AdminOperations, "project": schema.ProjectOperations} {
		for _, op := range operations {
			if !seen[socket+" "+string(op.Op)] {
				t.Errorf("%s on the %s socket has no example of its answer", op.Op, socket)
			}
		}
	}
}

func example(t *testing.T, check *validator, number int, socket string, block []string, seen map[string]bool) {
	t.Helper()
	for _, line := range block {
		if strings.HasPrefix(line, `{"op":`) && len(block) != 2 {
			t.Errorf("PROTOCOL.md:%d: a request without its answer", number)
		}
	}
	switch {
	case len(block) == 2:
		var request schema.Request
		if err := wire.Decode([]byte(block[0]), &request, schema.MaxDepth); err != nil {
			t.Errorf("PROTOCOL.md:%d: %v", number, err)
		}
		operation := find(socket, request.Op)
		if operation == nil {
			t.Fatalf("PROTOCOL.md:%d: the %q socket has no op %q", number, socket, request.Op)
		}
		// The broker parses a push in place: its type cannot be decoded into.
		if request.Op != schema.OpPush {
			decodes(t, number, block[0], operation.Request, schema.MaxDepth)
		}
		check.line(t, number, block[0], operation.Request)
		if strings.HasPrefix(block[1], `{"ok":false`) {
			decodes(t, number, block[1], schema.ErrorResponse{}, schema.MaxResponseDepth)
			check.line(t, number, block[1], schema.ErrorResponse{})
			return
		}
		decodes(t, number, block[1], operation.Response, schema.MaxResponseDepth)
		check.line(t, number, block[1], operation.Response)
		seen[socket+" "+string(request.Op)] = true
	case len(block) == 1 && strings.HasPrefix(block[0], `{"ok":false`):
		check.line(t, number, block[0], schema.ErrorResponse{})
	case len(block) == 1:
		for _, event := range schema.AuditEvents {
			if strings.Contains(block[0], fmt.Sprintf(`"event":"%s"`, event.Name)) {
				decodes(t, number, block[0], event.Event, schema.MaxDepth)
				check.line(t, number, block[0], event.Event)
				return
			}
		}
		for _, line := range schema.Streams {
			if strings.HasPrefix(block[0], `{"event":"`+schema.EventChanged+`"`) {
				decodes(t, number, block[0], line, schema.MaxResponseDepth)
				check.line(t, number, block[0], line)
				return
			}
		}
		t.Errorf("PROTOCOL.md:%d: what is this?", number)
	default:
		t.Errorf("PROTOCOL.md:%d: a block of %d lines", number, len(block))
	}
}

func find(socket string, op schema.Op) *schema.Operation {
	tables := map[string][]schema.Operation{"admin": schema.AdminOperations, "project": schema.ProjectOperations}
	for _, operation := range tables[socket] {
		if operation.Op == op {
			return &operation
		}
	}
	return nil
}

// decodes also encodes again, so that a field the example misspells is seen.
func decodes(t *testing.T, number int, line string, zero any, depth int) {
	t.Helper()
	v := reflect.New(reflect.TypeOf(zero))
	if err := wire.Decode([]byte(line), v.Interface(), depth); err != nil {
		t.Errorf("PROTOCOL.md:%d: %v", number, err)
		return
	}
	encoded, err := wire.Encode(v.Interface())
	if err != nil || len(encoded) != len(line)+1 { // maps come in any order
		t.Errorf("PROTOCOL.md:%d: written again it is %s, %v", number, encoded, err)
	}
}
