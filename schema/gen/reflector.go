package main

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/invopop/jsonschema"
	"github.com/keyhatch/keyhatch/schema"
)

var secretName = reflect.TypeFor[schema.SecretName]()

// A reflector is a jsonschema.Reflector that knows the contract's named scalars.
type reflector struct {
	*jsonschema.Reflector
	err error // the first type that has no place in the contract
}

// newReflector reads the comments. Wire types are open, because a newer version
// may add fields to them; the manifest is closed, because a misspelt key there
// must be found.
func newReflector(open bool) (*reflector, error) {
	r := &reflector{Reflector: &jsonschema.Reflector{Anonymous: true, AllowAdditionalProperties: open}}
	if err := r.AddGoComments(secretName.PkgPath(), ".", jsonschema.WithFullComment()); err != nil {
		return nil, err
	}
	if r.CommentMap[secretName.PkgPath()+".SecretName"] == "" {
		return nil, fmt.Errorf("no comments found: this is not the directory of %s", secretName.PkgPath())
	}
	r.LookupComment = r.comment
	r.Mapper = r.scalar
	return r, nil
}

// scalar maps the types that have a definition in rules.go, and bounds the
// unsigned ones.
func (r *reflector) scalar(t reflect.Type) *jsonschema.Schema {
	if t.PkgPath() == secretName.PkgPath() {
		if _, ok := scalars[t.Name()]; ok {
			return &jsonschema.Schema{Ref: "#/$defs/" + t.Name()}
		}
	}
	switch t.Kind() {
	case reflect.Uint32:
		return &jsonschema.Schema{Type: "integer", Minimum: "0", Maximum: "4294967295"}
	case reflect.Uint64:
		return &jsonschema.Schema{Type: "integer", Minimum: "0"}
	case reflect.Map:
		// finish gives every map the names of secrets as its keys.
		if t.Key() != secretName {
			r.err = fmt.Errorf("%v is not keyed by names of secrets", t)
		}
	}
	return nil
}

// comment returns a type's comment, or a field's with the field called by its
// JSON name, each paragraph on one line.
func (r *reflector) comment(t reflect.Type, field string) string {
	key := t.PkgPath() + "." + t.Name()
	if field == "" {
		return oneLine(r.CommentMap[key])
	}
	text := r.CommentMap[key+"."+field]
	if f, ok := t.FieldByName(field); ok {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if rest, ok := strings.CutPrefix(text, field+" "); ok {
			text = name + " " + rest
		}
	}
	return oneLine(text)
}

func oneLine(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	for i := range paragraphs {
		paragraphs[i] = strings.Join(strings.Fields(paragraphs[i]), " ")
	}
	return strings.Join(paragraphs, "\n\n")
}

// finish adds to a document what the types could not say: the scalars that it
// refers to, the names in maps, and its rules.
func finish(root *jsonschema.Schema, rules map[string]func(*jsonschema.Schema)) error {
	comments, err := newReflector(true)
	if err != nil {
		return err
	}
	for _, name := range referred(root) {
		define, ok := scalars[name]
		if !ok {
			if root.Definitions[name] == nil {
				return fmt.Errorf("nothing defines %s", name)
			}
			continue
		}
		definition := define()
		definition.Description = oneLine(comments.CommentMap[secretName.PkgPath()+"."+name])
		root.Definitions[name] = definition
	}
	for _, definition := range root.Definitions {
		if definition.Properties == nil {
			continue
		}
		for p := definition.Properties.Oldest(); p != nil; p = p.Next() {
			if p.Value.Type == "object" && p.Value.AdditionalProperties != nil {
				p.Value.PropertyNames = &jsonschema.Schema{Ref: "#/$defs/SecretName"}
			}
		}
	}
	for path, rule := range rules {
		name, property, isProperty := strings.Cut(path, ".")
		target := root.Definitions[name]
		if isProperty && target != nil {
			target, _ = target.Properties.Get(property)
		}
		if target == nil {
			return fmt.Errorf("there is a rule for %s, which does not exist", path)
		}
		rule(target)
	}
	return nil
}

// referred returns the names of the scalars that a document refers to, which is
// SecretName in any case.
func referred(root *jsonschema.Schema) []string {
	names := []string{"SecretName"}
	var walk func(s *jsonschema.Schema)
	walk = func(s *jsonschema.Schema) {
		if s == nil {
			return
		}
		if name, ok := strings.CutPrefix(s.Ref, "#/$defs/"); ok {
			names = append(names, name)
		}
		walk(s.Items)
		walk(s.AdditionalProperties)
		if s.Properties != nil {
			for p := s.Properties.Oldest(); p != nil; p = p.Next() {
				walk(p.Value)
			}
		}
	}
	for _, definition := range root.Definitions {
		walk(definition)
	}
	return names
}

// ref is a reference to a definition of the same document.
type ref struct {
	Ref string `json:"$ref"`
}

// add defines the type of v and those it uses in root, and fixes one of its
// properties to a constant. A type may serve several ops only if that constant
// is the same.
func (r *reflector) add(root *jsonschema.Schema, v any, property string, constant any) (ref, error) {
	name := reflect.TypeOf(v).Name()
	if there := root.Definitions[name]; there == nil {
		for name, definition := range r.Reflect(v).Definitions {
			if root.Definitions[name] == nil {
				root.Definitions[name] = definition
			}
		}
		if r.err != nil {
			return ref{}, r.err
		}
	}
	fixed, ok := root.Definitions[name].Properties.Get(property)
	if !ok {
		return ref{}, fmt.Errorf("%s has no %s", name, property)
	}
	if fixed.Const != nil && fixed.Const != constant {
		return ref{}, fmt.Errorf("%s stands for two messages, with %s %v and %v", name, property, fixed.Const, constant)
	}
	fixed.Const = constant
	return ref{"#/$defs/" + name}, nil
}
