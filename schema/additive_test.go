package schema_test

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"
)

// TestProtocolChangesAreAdditive compares the schema with the baseline, which is
// the schema of the last release. Within version 2, only additive changes are
// allowed.
func TestProtocolChangesAreAdditive(t *testing.T) {
	baseline := readDocument(t, "testdata/keyhatch.v2.baseline.json")
	for _, change := range breakingChanges(baseline, readDocument(t, "keyhatch.v2.json")) {
		t.Errorf("the change is not additive: %s", change)
	}
}

type object = map[string]any

func readDocument(t *testing.T, path string) object {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var document object
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	return document
}

// breakingChanges lists the changes from one document to another that could
// break a client or a broker written for the first one.
func breakingChanges(before, after object) []string {
	c := &comparison{requestDefs: reachableDefs(before, "request"), responseDefs: reachableDefs(before, "response")}
	c.compareTable("x-operations", before["x-operations"], after["x-operations"])
	c.compareTable("x-events", before["x-events"], after["x-events"])
	c.compareTable("x-error", before["x-error"], after["x-error"])
	oldLimits, newLimits := before["x-limits"].(object), after["x-limits"].(object)
	for name, limit := range oldLimits {
		if newLimit, ok := newLimits[name].(float64); !ok || newLimit < limit.(float64) {
			c.report("the limit %s was removed or lowered", name)
		}
	}
	oldDefs, newDefs := before["$defs"].(object), after["$defs"].(object)
	for name, definition := range oldDefs {
		c.definition = name
		c.compareSchema(name, definition, newDefs[name])
	}
	sort.Strings(c.changes)
	return c.changes
}

// A comparison knows in which direction each definition is sent. A new required
// field breaks requests. A field that becomes optional breaks responses and events.
type comparison struct {
	requestDefs, responseDefs map[string]bool
	definition                string // the definition being compared
	changes                   []string
}

func (c *comparison) report(format string, args ...any) {
	c.changes = append(c.changes, fmt.Sprintf(format, args...))
}

// compareTable checks that every entry of a table of references is unchanged.
func (c *comparison) compareTable(path string, before, after any) {
	old, isObject := before.(object)
	if !isObject {
		if !reflect.DeepEqual(before, after) {
			c.report("%s is not %v", path, before)
		}
		return
	}
	now, ok := after.(object)
	if !ok {
		c.report("%s is gone", path)
		return
	}
	for key := range old {
		c.compareTable(path+"/"+key, old[key], now[key])
	}
}

func (c *comparison) compareSchema(path string, before, after any) {
	now, ok := after.(object)
	if !ok {
		c.report("%s is gone", path)
		return
	}
	old := before.(object)
	keywords := map[string]bool{}
	for k := range old {
		keywords[k] = true
	}
	for k := range now {
		keywords[k] = true
	}
	for k := range keywords {
		switch k {
		case "description":
		case "enum": // a new value is additive: clients must expect unknown ones
			for _, value := range asList(old[k]) {
				if !slices.Contains(asList(now[k]), value) {
					c.report("%s: the value %v is gone", path, value)
				}
			}
			if old[k] == nil {
				c.report("%s: enum is new", path)
			}
		case "properties":
			properties, _ := now[k].(object)
			for name, property := range asObject(old[k]) {
				c.compareSchema(path+"."+name, property, properties[name])
			}
		case "required":
			c.compareRequired(path, asList(old[k]), asList(now[k]))
		case "items", "propertyNames", "additionalProperties":
			if old[k] == nil {
				c.report("%s: %s is new", path, k)
				continue
			}
			if _, isObject := old[k].(object); isObject {
				c.compareSchema(path+"/"+k, old[k], now[k])
				continue
			}
			fallthrough
		default: // type, const, $ref, pattern, and the others must not change
			if !reflect.DeepEqual(old[k], now[k]) {
				c.report("%s: %s was %v and is %v", path, k, old[k], now[k])
			}
		}
	}
}

func (c *comparison) compareRequired(path string, before, after []any) {
	for _, name := range after {
		if c.requestDefs[c.definition] && !slices.Contains(before, name) {
			c.report("%s: a request must have %v now", path, name)
		}
	}
	for _, name := range before {
		if c.responseDefs[c.definition] && !slices.Contains(after, name) {
			c.report("%s: %v may be missing now", path, name)
		}
	}
}

// reachableDefs returns the names of the definitions that are sent in a
// direction, "request" or "response". Errors and events are sent in the
// direction of responses.
func reachableDefs(document object, direction string) map[string]bool {
	names := map[string]bool{}
	var walk func(node any)
	walk = func(node any) {
		switch node := node.(type) {
		case object:
			if ref, ok := node["$ref"].(string); ok {
				name := strings.TrimPrefix(ref, "#/$defs/")
				if !names[name] {
					names[name] = true
					walk(document["$defs"].(object)[name])
				}
			}
			for _, child := range node {
				walk(child)
			}
		case []any:
			for _, child := range node {
				walk(child)
			}
		}
	}
	for _, ops := range document["x-operations"].(object) {
		for _, op := range ops.(object) {
			walk(op.(object)[direction])
		}
	}
	if direction == "response" {
		walk(document["x-error"])
		walk(document["x-events"])
	}
	return names
}

func asList(v any) []any    { l, _ := v.([]any); return l }
func asObject(v any) object { m, _ := v.(object); return m }
func lookup(v any, path ...string) object {
	for _, key := range path {
		v = v.(object)[key]
	}
	return v.(object)
}

// TestBreakingChangesAreFound checks that breakingChanges reports each kind of
// breaking change and accepts each kind of additive change.
func TestBreakingChangesAreFound(t *testing.T) {
	withoutValue := func(values any, value string) []any {
		return slices.DeleteFunc(slices.Clone(asList(values)), func(v any) bool { return v == value })
	}
	for name, tc := range map[string]struct {
		change func(d object)
		want   string // part of the one report; "" for an additive change
	}{
		"a definition goes": {func(d object) { delete(lookup(d, "$defs"), "Counts") }, "Counts is gone"},
		"an op goes":        {func(d object) { delete(lookup(d, "x-operations", "project"), "info") }, "project/info is gone"},
		"a socket goes":     {func(d object) { delete(lookup(d, "x-operations"), "project") }, "x-operations/project is gone"},
		"an op is retyped": {func(d object) {
			lookup(d, "x-operations", "admin", "status", "response")["$ref"] = "#/$defs/OKResponse"
		}, "status/response/$ref is not"},
		"an event goes":        {func(d object) { delete(lookup(d, "x-events"), "push.rejected") }, "push.rejected is gone"},
		"the error is retyped": {func(d object) { lookup(d, "x-error")["$ref"] = "#/$defs/OKResponse" }, "x-error/$ref is not"},
		"a limit shrinks":      {func(d object) { lookup(d, "x-limits")["MaxRequest"] = 1.0 }, "the limit MaxRequest"},
		"a limit goes":         {func(d object) { delete(lookup(d, "x-limits"), "MaxPush") }, "the limit MaxPush"},
		"a property goes": {func(d object) {
			delete(lookup(d, "$defs", "StatusResponse", "properties"), "memory")
		}, "StatusResponse.memory is gone"},
		"a property changes type": {func(d object) {
			lookup(d, "$defs", "PushResponse", "properties", "generation")["type"] = "string"
		}, "PushResponse.generation: type was integer"},
		"a reference changes": {func(d object) {
			lookup(d, "$defs", "GetRequest", "properties", "name")["$ref"] = "#/$defs/ProjectName"
		}, "GetRequest.name: $ref was"},
		"items change": {func(d object) {
			lookup(d, "$defs", "ListResponse", "properties", "names", "items")["$ref"] = "#/$defs/Code"
		}, "ListResponse.names/items: $ref was"},
		"a map's values change": {func(d object) {
			lookup(d, "$defs", "PushRequest", "properties", "secrets", "additionalProperties")["$ref"] = "#/$defs/Code"
		}, "PushRequest.secrets/additionalProperties: $ref was"},
		"a type is closed": {func(d object) {
			lookup(d, "$defs", "GetRequest")["additionalProperties"] = false
		}, "GetRequest: additionalProperties is new"},
		"a bound is new": {func(d object) {
			lookup(d, "$defs", "RegisterRequest", "properties", "project_path")["maxLength"] = 9.0
		}, "RegisterRequest.project_path: maxLength was"},
		"an enum value goes": {func(d object) {
			code := lookup(d, "$defs", "Code")
			code["enum"] = withoutValue(code["enum"], "denied")
		}, "Code: the value denied is gone"},
		"an open string is closed": {func(d object) {
			lookup(d, "$defs", "ErrorResponse", "properties", "message")["enum"] = []any{"no"}
		}, "ErrorResponse.message: enum is new"},
		"a const changes": {func(d object) {
			lookup(d, "$defs", "ClearRequest", "properties", "op")["const"] = "clear"
		}, "ClearRequest.op: const was"},
		"a request needs more": {func(d object) {
			r := lookup(d, "$defs", "GetRequest")
			r["required"] = append(slices.Clone(asList(r["required"])), "wait_ms")
		}, "GetRequest: a request must have wait_ms"},
		"a response promises less": {func(d object) {
			r := lookup(d, "$defs", "ProjectStatus")
			r["required"] = withoutValue(r["required"], "counts")
		}, "ProjectStatus: counts may be missing"},
		"an event promises less": {func(d object) {
			r := lookup(d, "$defs", "SecretsFetched")
			r["required"] = withoutValue(r["required"], "denied")
		}, "SecretsFetched: denied may be missing"},

		"a new definition":  {func(d object) { lookup(d, "$defs")["New"] = object{"type": "object"} }, ""},
		"a new op":          {func(d object) { lookup(d, "x-operations", "project")["new-op"] = object{} }, ""},
		"a new event":       {func(d object) { lookup(d, "x-events")["new.event"] = object{} }, ""},
		"a new property":    {func(d object) { lookup(d, "$defs", "GetRequest", "properties")["x"] = object{} }, ""},
		"a new description": {func(d object) { lookup(d, "$defs", "GetRequest")["description"] = "other" }, ""},
		"a higher limit":    {func(d object) { lookup(d, "x-limits")["MaxRequest"] = 1e9 }, ""},
		"a new code":        {func(d object) { c := lookup(d, "$defs", "Code"); c["enum"] = append(asList(c["enum"]), "new") }, ""},
		"a response tells more": {func(d object) {
			r := lookup(d, "$defs", "InfoResponse")
			lookup(r, "properties")["x"] = object{}
			r["required"] = append(slices.Clone(asList(r["required"])), "x")
		}, ""},
		"a request needs less": {func(d object) { lookup(d, "$defs", "GetRequest")["required"] = []any{"op"} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			const baseline = "testdata/keyhatch.v2.baseline.json"
			after := readDocument(t, baseline)
			tc.change(after)
			changes := breakingChanges(readDocument(t, baseline), after)
			switch {
			case tc.want == "" && len(changes) > 0:
				t.Errorf("an additive change was reported as breaking: %v", changes)
			case tc.want != "" && (len(changes) != 1 || !strings.Contains(changes[0], tc.want)):
				t.Errorf("got the reports %q, want exactly one with %q", changes, tc.want)
			}
		})
	}
}
