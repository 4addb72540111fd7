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

// TestProtocolChangesAreAdditive compares the current schema with the baseline, which is the
// schema of the last release. It must find no change that could break a released client or
// broker, because within protocol version 2, only additive changes are allowed.
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

// breakingChanges lists the changes between two schema documents that could break a
// client or a broker that was written for the older document.
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

// A comparison compares two schema documents. Its fields requestDefs and responseDefs contain
// the definitions that are sent in requests, and in responses or events, because different
// changes break them: a new required field breaks requests, and a field that becomes optional
// breaks responses and events.
type comparison struct {
	requestDefs, responseDefs map[string]bool
	definition                string // the name of the definition that is being compared
	changes                   []string
}

func (c *comparison) report(format string, args ...any) {
	c.changes = append(c.changes, fmt.Sprintf(format, args...))
}

// compareTable reports every entry of the old table of references that is missing or changed
// in the new table.
func (c *comparison) compareTable(path string, before, after any) {
	old, isObject := before.(object)
	if !isObject {
		if !reflect.DeepEqual(before, after) {
			c.report("%s is not %v any more", path, before)
		}
		return
	}
	now, ok := after.(object)
	if !ok {
		c.report("%s was removed", path)
		return
	}
	for key := range old {
		c.compareTable(path+"/"+key, old[key], now[key])
	}
}

// compareSchema reports the breaking changes between two versions of one schema, which is a
// definition or a part of a definition.
func (c *comparison) compareSchema(path string, before, after any) {
	now, ok := after.(object)
	if !ok {
		c.report("%s was removed", path)
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
		case "enum": // a new value is additive, because clients must expect unknown values
			for _, value := range asList(old[k]) {
				if !slices.Contains(asList(now[k]), value) {
					c.report("%s: the value %v was removed", path, value)
				}
			}
			if old[k] == nil {
				c.report("%s: enum was added", path)
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
				c.report("%s: %s was added", path, k)
				continue
			}
			if _, isObject := old[k].(object); isObject {
				c.compareSchema(path+"/"+k, old[k], now[k])
				continue
			}
			fallthrough
		default: // type, const, $ref, pattern, and all other keywords must not change
			if !reflect.DeepEqual(old[k], now[k]) {
				c.report("%s: %s was %v and is now %v", path, k, old[k], now[k])
			}
		}
	}
}

func (c *comparison) compareRequired(path string, before, after []any) {
	for _, name := range after {
		if c.requestDefs[c.definition] && !slices.Contains(before, name) {
			c.report("%s: a request must have %v, which was not required before", path, name)
		}
	}
	for _, name := range before {
		if c.responseDefs[c.definition] && !slices.Contains(after, name) {
			c.report("%s: %v may be missing, but was required before", path, name)
		}
	}
}

// reachableDefs returns the names of all definitions that are used in requests or in
// responses. direction is "request" or "response". Errors and events count as responses.
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

// TestBreakingChangesAreFound checks that breakingChanges reports each kind of breaking
// change, and accepts each kind of additive change.
func TestBreakingChangesAreFound(t *testing.T) {
	withoutValue := func(values any, value string) []any {
		return slices.DeleteFunc(slices.Clone(asList(values)), func(v any) bool { return v == value })
	}
	for name, tc := range map[string]struct {
		change func(d object)
		want   string // a part of the only report; "" for an additive change
	}{
		"a definition is removed": {func(d object) { delete(lookup(d, "$defs"), "Counts") }, "Counts was removed"},
		"an op is removed":        {func(d object) { delete(lookup(d, "x-operations", "project"), "info") }, "project/info was removed"},
		"a socket is removed":     {func(d object) { delete(lookup(d, "x-operations"), "project") }, "x-operations/project was removed"},
		"an op gets another type": {func(d object) {
			lookup(d, "x-operations", "admin", "status", "response")["$ref"] = "#/$defs/OKResponse"
		}, "status/response/$ref is not"},
		"an event is removed":                  {func(d object) { delete(lookup(d, "x-events"), "push.rejected") }, "push.rejected was removed"},
		"the error response gets another type": {func(d object) { lookup(d, "x-error")["$ref"] = "#/$defs/OKResponse" }, "x-error/$ref is not"},
		"a limit is lowered":                   {func(d object) { lookup(d, "x-limits")["MaxRequest"] = 1.0 }, "the limit MaxRequest"},
		"a limit is removed":                   {func(d object) { delete(lookup(d, "x-limits"), "MaxPush") }, "the limit MaxPush"},
		"a property is removed": {func(d object) {
			delete(lookup(d, "$defs", "StatusResponse", "properties"), "memory")
		}, "StatusResponse.memory was removed"},
		"a property changes type": {func(d object) {
			lookup(d, "$defs", "PushResponse", "properties", "generation")["type"] = "string"
		}, "PushResponse.generation: type was integer"},
		"a reference changes": {func(d object) {
			lookup(d, "$defs", "GetRequest", "properties", "name")["$ref"] = "#/$defs/ProjectName"
		}, "GetRequest.name: $ref was"},
		"the items of a list get another type": {func(d object) {
			lookup(d, "$defs", "ListResponse", "properties", "names", "items")["$ref"] = "#/$defs/Code"
		}, "ListResponse.names/items: $ref was"},
		"the values of a map get another type": {func(d object) {
			lookup(d, "$defs", "PushRequest", "properties", "secrets", "additionalProperties")["$ref"] = "#/$defs/Code"
		}, "PushRequest.secrets/additionalProperties: $ref was"},
		"a type forbids unknown fields": {func(d object) {
			lookup(d, "$defs", "GetRequest")["additionalProperties"] = false
		}, "GetRequest: additionalProperties was added"},
		"a property gets a maximum length": {func(d object) {
			lookup(d, "$defs", "RegisterRequest", "properties", "project_path")["maxLength"] = 9.0
		}, "RegisterRequest.project_path: maxLength was"},
		"an enum value is removed": {func(d object) {
			code := lookup(d, "$defs", "Code")
			code["enum"] = withoutValue(code["enum"], "denied")
		}, "Code: the value denied was removed"},
		"a string gets an enum": {func(d object) {
			lookup(d, "$defs", "ErrorResponse", "properties", "message")["enum"] = []any{"no"}
		}, "ErrorResponse.message: enum was added"},
		"a constant changes": {func(d object) {
			lookup(d, "$defs", "ClearRequest", "properties", "op")["const"] = "clear"
		}, "ClearRequest.op: const was"},
		"an optional request field becomes required": {func(d object) {
			r := lookup(d, "$defs", "GetRequest")
			r["required"] = append(slices.Clone(asList(r["required"])), "wait_ms")
		}, "GetRequest: a request must have wait_ms"},
		"a required response field becomes optional": {func(d object) {
			r := lookup(d, "$defs", "ProjectStatus")
			r["required"] = withoutValue(r["required"], "counts")
		}, "ProjectStatus: counts may be missing"},
		"a required event field becomes optional": {func(d object) {
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
		"a new required response field": {func(d object) {
			r := lookup(d, "$defs", "InfoResponse")
			lookup(r, "properties")["x"] = object{}
			r["required"] = append(slices.Clone(asList(r["required"])), "x")
		}, ""},
		"a required request field becomes optional": {func(d object) { lookup(d, "$defs", "GetRequest")["required"] = []any{"op"} }, ""},
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
				t.Errorf("breakingChanges returned the reports %q, want exactly one report that contains %q", changes, tc.want)
			}
		})
	}
}
