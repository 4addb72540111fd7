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

// Version 2 may grow but not change. The baseline is what has been published;
// it is replaced only by a document that passes this test.
func TestVersion2IsAdditive(t *testing.T) {
	baseline := readDocument(t, "testdata/keyhatch.v2.baseline.json")
	for _, change := range breaking(baseline, readDocument(t, "keyhatch.v2.json")) {
		t.Errorf("not additive: %s", change)
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

// breaking lists the changes from one document to another that could break
// a client or a broker written against the first.
func breaking(before, after object) []string {
	c := &comparison{asked: reachable(before, "request"), answered: reachable(before, "response")}
	c.index("x-operations", before["x-operations"], after["x-operations"])
	c.index("x-events", before["x-events"], after["x-events"])
	c.index("x-error", before["x-error"], after["x-error"])
	old, now := before["x-limits"].(object), after["x-limits"].(object)
	for name, limit := range old {
		if grown, ok := now[name].(float64); !ok || grown < limit.(float64) {
			c.report("the limit %s is gone or smaller", name)
		}
	}
	oldDefs, newDefs := before["$defs"].(object), after["$defs"].(object)
	for name, definition := range oldDefs {
		c.name = name
		c.schema(name, definition, newDefs[name])
	}
	sort.Strings(c.changes)
	return c.changes
}

// A comparison knows which definitions are sent in which direction: a field
// that becomes required breaks requests, one that no longer is breaks
// responses and events.
type comparison struct {
	asked, answered map[string]bool
	name            string // the definition being compared
	changes         []string
}

func (c *comparison) report(format string, args ...any) {
	c.changes = append(c.changes, fmt.Sprintf(format, args...))
}

// index compares the tables of references: what is there stays as it is.
func (c *comparison) index(path string, before, after any) {
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
		c.index(path+"/"+key, old[key], now[key])
	}
}

func (c *comparison) schema(path string, before, after any) {
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
			for _, value := range list(old[k]) {
				if !slices.Contains(list(now[k]), value) {
					c.report("%s: the value %v is gone", path, value)
				}
			}
			if old[k] == nil {
				c.report("%s: enum is new", path)
			}
		case "properties":
			properties, _ := now[k].(object)
			for name, property := range mapping(old[k]) {
				c.schema(path+"."+name, property, properties[name])
			}
		case "required":
			c.required(path, list(old[k]), list(now[k]))
		case "items", "propertyNames", "additionalProperties":
			if old[k] == nil {
				c.report("%s: %s is new", path, k)
				continue
			}
			if _, isObject := old[k].(object); isObject {
				c.schema(path+"/"+k, old[k], now[k])
				continue
			}
			fallthrough
		default: // type, const, $ref, pattern and the rest are what they were
			if !reflect.DeepEqual(old[k], now[k]) {
				c.report("%s: %s was %v and is %v", path, k, old[k], now[k])
			}
		}
	}
}

func (c *comparison) required(path string, before, after []any) {
	for _, name := range after {
		if c.asked[c.name] && !slices.Contains(before, name) {
			c.report("%s: a request must have %v now", path, name)
		}
	}
	for _, name := range before {
		if c.answered[c.name] && !slices.Contains(after, name) {
			c.report("%s: %v may be missing now", path, name)
		}
	}
}

// reachable names the definitions that are sent in a direction. Errors and
// events go where responses go.
func reachable(document object, direction string) map[string]bool {
	names := map[string]bool{}
	var follow func(node any)
	follow = func(node any) {
		switch node := node.(type) {
		case object:
			if to, ok := node["$ref"].(string); ok {
				name := strings.TrimPrefix(to, "#/$defs/")
				if !names[name] {
					names[name] = true
					follow(document["$defs"].(object)[name])
				}
			}
			for _, child := range node {
				follow(child)
			}
		case []any:
			for _, child := range node {
				follow(child)
			}
		}
	}
	for _, ops := range document["x-operations"].(object) {
		for _, op := range ops.(object) {
			follow(op.(object)[direction])
		}
	}
	if direction == "response" {
		follow(document["x-error"])
		follow(document["x-events"])
	}
	return names
}

func list(v any) []any     { l, _ := v.([]any); return l }
func mapping(v any) object { m, _ := v.(object); return m }
func at(v any, path ...string) object {
	for _, key := range path {
		v = v.(object)[key]
	}
	return v.(object)
}

// The check itself is seen to fail, and to let pass what is additive.
func TestBreakingChangesAreFound(t *testing.T) {
	without := func(values any, value string) []any {
		return slices.DeleteFunc(slices.Clone(list(values)), func(v any) bool { return v == value })
	}
	for name, tc := range map[string]struct {
		change func(d object)
		want   string // part of the one report; "" for an additive change
	}{
		"a definition goes": {func(d object) { delete(at(d, "$defs"), "Counts") }, "Counts is gone"},
		"an op goes":        {func(d object) { delete(at(d, "x-operations", "project"), "info") }, "project/info is gone"},
		"a socket goes":     {func(d object) { delete(at(d, "x-operations"), "project") }, "x-operations/project is gone"},
		"an op is retyped": {func(d object) {
			at(d, "x-operations", "admin", "status", "response")["$ref"] = "#/$defs/OKResponse"
		}, "status/response/$ref is not"},
		"an event goes":        {func(d object) { delete(at(d, "x-events"), "push.rejected") }, "push.rejected is gone"},
		"the error is retyped": {func(d object) { at(d, "x-error")["$ref"] = "#/$defs/OKResponse" }, "x-error/$ref is not"},
		"a limit shrinks":      {func(d object) { at(d, "x-limits")["MaxRequest"] = 1.0 }, "the limit MaxRequest"},
		"a limit goes":         {func(d object) { delete(at(d, "x-limits"), "MaxPush") }, "the limit MaxPush"},
		"a property goes": {func(d object) {
			delete(at(d, "$defs", "StatusResponse", "properties"), "memory")
		}, "StatusResponse.memory is gone"},
		"a property changes type": {func(d object) {
			at(d, "$defs", "PushResponse", "properties", "generation")["type"] = "string"
		}, "PushResponse.generation: type was integer"},
		"a reference changes": {func(d object) {
			at(d, "$defs", "GetRequest", "properties", "name")["$ref"] = "#/$defs/ProjectName"
		}, "GetRequest.name: $ref was"},
		"items change": {func(d object) {
			at(d, "$defs", "ListResponse", "properties", "names", "items")["$ref"] = "#/$defs/Code"
		}, "ListResponse.names/items: $ref was"},
		"a map's values change": {func(d object) {
			at(d, "$defs", "PushRequest", "properties", "secrets", "additionalProperties")["$ref"] = "#/$defs/Code"
		}, "PushRequest.secrets/additionalProperties: $ref was"},
		"a type is closed": {func(d object) {
			at(d, "$defs", "GetRequest")["additionalProperties"] = false
		}, "GetRequest: additionalProperties is new"},
		"a bound is new": {func(d object) {
			at(d, "$defs", "RegisterRequest", "properties", "project_path")["maxLength"] = 9.0
		}, "RegisterRequest.project_path: maxLength was"},
		"an enum value goes": {func(d object) {
			code := at(d, "$defs", "Code")
			code["enum"] = without(code["enum"], "denied")
		}, "Code: the value denied is gone"},
		"an open string is closed": {func(d object) {
			at(d, "$defs", "ErrorResponse", "properties", "message")["enum"] = []any{"no"}
		}, "ErrorResponse.message: enum is new"},
		"a const changes": {func(d object) {
			at(d, "$defs", "ClearRequest", "properties", "op")["const"] = "clear"
		}, "ClearRequest.op: const was"},
		"a request needs more": {func(d object) {
			r := at(d, "$defs", "GetRequest")
			r["required"] = append(slices.Clone(list(r["required"])), "wait_ms")
		}, "GetRequest: a request must have wait_ms"},
		"a response promises less": {func(d object) {
			r := at(d, "$defs", "ProjectStatus")
			r["required"] = without(r["required"], "counts")
		}, "ProjectStatus: counts may be missing"},
		"an event promises less": {func(d object) {
			r := at(d, "$defs", "SecretsFetched")
			r["required"] = without(r["required"], "denied")
		}, "SecretsFetched: denied may be missing"},

		"a new definition":  {func(d object) { at(d, "$defs")["New"] = object{"type": "object"} }, ""},
		"a new op":          {func(d object) { at(d, "x-operations", "project")["watch"] = object{} }, ""},
		"a new event":       {func(d object) { at(d, "x-events")["auth.failed"] = object{} }, ""},
		"a new property":    {func(d object) { at(d, "$defs", "GetRequest", "properties")["x"] = object{} }, ""},
		"a new description": {func(d object) { at(d, "$defs", "GetRequest")["description"] = "other" }, ""},
		"a higher limit":    {func(d object) { at(d, "x-limits")["MaxRequest"] = 1e9 }, ""},
		"a new code":        {func(d object) { c := at(d, "$defs", "Code"); c["enum"] = append(list(c["enum"]), "new") }, ""},
		"a response tells more": {func(d object) {
			r := at(d, "$defs", "InfoResponse")
			at(r, "properties")["x"] = object{}
			r["required"] = append(slices.Clone(list(r["required"])), "x")
		}, ""},
		"a request needs less": {func(d object) { at(d, "$defs", "GetRequest")["required"] = []any{"op"} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			const baseline = "testdata/keyhatch.v2.baseline.json"
			after := readDocument(t, baseline)
			tc.change(after)
			changes := breaking(readDocument(t, baseline), after)
			switch {
			case tc.want == "" && len(changes) > 0:
				t.Errorf("an additive change was refused: %v", changes)
			case tc.want != "" && (len(changes) != 1 || !strings.Contains(changes[0], tc.want)):
				t.Errorf("got %q, want one report with %q", changes, tc.want)
			}
		})
	}
}
