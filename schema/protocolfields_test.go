package schema_test

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// TestProtocolDocumentsEveryField checks that PROTOCOL.md documents every field of all
// messages, at every depth. The section of an op must contain an example with the field,
// or a table row that begins with the path of the field.
//
// Paths have the syntax of jq, for example "projects[].counts.denied". If the keys of a
// map are names of secrets, NAME is a placeholder for such a key.
func TestProtocolDocumentsEveryField(t *testing.T) {
	sections := opSections(readProtocol(t))
	for socket, operations := range map[string][]schema.Operation{"admin": schema.AdminOperations, "project": schema.ProjectOperations} {
		for _, op := range operations {
			section, ok := sections[socket+" "+string(op.Op)]
			if !ok {
				t.Errorf("PROTOCOL.md has no section for %s on the %s socket", op.Op, socket)
				continue
			}
			for message, zero := range map[string]any{"request": op.Request, "response": op.Response, "event": schema.StreamEvents[op.Op]} {
				if zero == nil {
					continue
				}
				documented := documentedFields(t, section, message, reflect.TypeOf(zero))
				for _, path := range fieldPaths(reflect.TypeOf(zero), "") {
					if !slices.Contains(documented, path) {
						t.Errorf("PROTOCOL.md: the section of %s on the %s socket must have an example or a table row with %s, a field of its %s", op.Op, socket, path, message)
					}
				}
			}
		}
	}
}

// opSections returns the lines of each op's section. The keys of the map contain the
// socket and the op.
func opSections(text string) map[string][]string {
	sections := map[string][]string{}
	socket, op := "", ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			socket, _ = strings.CutSuffix(strings.ToLower(heading), " ops")
			op = ""
		} else if heading, ok := strings.CutPrefix(line, "### "); ok {
			op = heading
		}
		if op != "" {
			sections[socket+" "+op] = append(sections[socket+" "+op], line)
		}
	}
	return sections
}

var fieldRow = regexp.MustCompile("^\\| `([^`]+)` \\|")

// documentedFields returns the paths of the fields that a section documents for one kind
// of message, which is a request, a response, or an event. It finds fields in JSON
// examples of this kind of message and in table rows. A table row applies to every kind
// of message.
func documentedFields(t *testing.T, section []string, message string, messageType reflect.Type) (paths []string) {
	t.Helper()
	for _, line := range section {
		if row := fieldRow.FindStringSubmatch(line); row != nil {
			paths = append(paths, row[1])
		}
		prefix := map[string]string{"request": `{"op":`, "response": `{"ok":true`, "event": `{"event":`}[message]
		if !strings.HasPrefix(line, prefix) {
			continue
		}
		var example any
		if err := json.Unmarshal([]byte(line), &example); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, exampleFieldPaths(messageType, example, "")...)
	}
	return paths
}

// fieldPaths returns the paths of all fields of a type. Each path begins with prefix.
func fieldPaths(t reflect.Type, prefix string) (paths []string) {
	switch t = messageElem(t); {
	case t.Kind() == reflect.Struct && !hasOwnJSON(t):
		for name, field := range jsonFields(t) {
			path := strings.TrimPrefix(prefix+"."+name, ".")
			paths = append(append(paths, path), fieldPaths(field, path)...)
		}
	case t.Kind() == reflect.Slice:
		paths = fieldPaths(t.Elem(), prefix+"[]")
	case t.Kind() == reflect.Map:
		paths = fieldPaths(t.Elem(), prefix+".NAME")
	}
	return paths
}

// exampleFieldPaths returns the paths of the fields that an example contains. example is
// a value that encoding/json has decoded.
func exampleFieldPaths(t reflect.Type, example any, prefix string) (paths []string) {
	switch t = messageElem(t); {
	case t.Kind() == reflect.Struct && !hasOwnJSON(t):
		values := asObject(example)
		for name, field := range jsonFields(t) {
			if value, ok := values[name]; ok {
				path := strings.TrimPrefix(prefix+"."+name, ".")
				paths = append(append(paths, path), exampleFieldPaths(field, value, path)...)
			}
		}
	case t.Kind() == reflect.Slice:
		for _, item := range asList(example) {
			paths = append(paths, exampleFieldPaths(t.Elem(), item, prefix+"[]")...)
		}
	case t.Kind() == reflect.Map:
		for _, value := range asObject(example) {
			paths = append(paths, exampleFieldPaths(t.Elem(), value, prefix+".NAME")...)
		}
	}
	return paths
}

// jsonFields returns the types of a struct's fields, including the fields of embedded
// structs. The keys of the map are JSON names.
func jsonFields(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for _, field := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
			fields[name] = field.Type
		}
	}
	return fields
}

// messageElem returns the element type of a pointer type. It returns any other type
// unchanged.
func messageElem(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// hasOwnJSON reports whether a type has its own JSON encoding, for example time.Time.
func hasOwnJSON(t reflect.Type) bool { return t.Implements(reflect.TypeFor[json.Marshaler]()) }

func TestFieldPathsIncludeNestedFields(t *testing.T) {
	paths := fieldPaths(reflect.TypeFor[schema.StatusResponse](), "")
	paths = append(paths, fieldPaths(reflect.TypeFor[schema.InfoResponse](), "")...)
	for _, want := range []string{"secret_count", "projects[].name", "projects[].counts.not_found", "secrets.NAME.env", "helpers.git[].host"} {
		if !slices.Contains(paths, want) {
			t.Errorf("%s is missing from %v", want, paths)
		}
	}
}
