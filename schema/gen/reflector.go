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
	r.LookupComment = r.lookupComment
	r.Mapper = r.mapScalar
	return r, nil
}

// mapScalar returns a reference for the types that scalarDefinitions defines,
// and bounds for the unsigned integers.
func (r *reflector) mapScalar(t reflect.Type) *jsonschema.Schema {
	if t.PkgPath() == secretName.PkgPath() {
		if _, ok := scalarDefinitions[t.Name()]; ok {
			return &jsonschema.Schema{Ref: "#/$defs/" + t.Name()}
		}
	}
	switch t.Kind() {
	case reflect.Uint32:
		return &jsonschema.Schema{Type: "integer", Minimum: "0", Maximum: "4294967295"}
	case reflect.Uint64:
		return &jsonschema.Schema{Type: "integer", Minimum: "0"}
	case reflect.Map:
		// completeDocument gives every map the names of secrets as its keys.
		if t.Key() != secretName {
			r.err = fmt.Errorf("%v is not keyed by names of secrets", t)
		}
	}
	return nil
}

// lookupComment returns the comment of a type or a field, each paragraph on one
// line. It replaces a field's Go name by its JSON name.
func (r *reflector) lookupComment(t reflect.Type, field string) string {
	key := t.PkgPath() + "." + t.Name()
	if field == "" {
		return joinLines(r.CommentMap[key])
	}
	text := r.CommentMap[key+"."+field]
	if f, ok := t.FieldByName(field); ok {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if rest, ok := strings.CutPrefix(text, field+" "); ok {
			text = name + " " + rest
		}
	}
	return joinLines(text)
}

func joinLines(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	for i := range paragraphs {
		paragraphs[i] = strings.Join(strings.Fields(paragraphs[i]), " ")
	}
	return strings.Join(paragraphs, "\n\n")
}

// completeDocument adds what the types cannot express: the scalars that the
// document refers to, the names in maps, and its rules.
func completeDocument(root *jsonschema.Schema, rules map[string]func(*jsonschema.Schema)) error {
	comments, err := newReflector(true)
	if err != nil {
		return err
	}
	for _, name := range referencedScalars(root) {
		define, ok := scalarDefinitions[name]
		if !ok {
			if root.Definitions[name] == nil {
				return fmt.Errorf("nothing defines %s", name)
			}
			continue
		}
		definition := define()
		definition.Description = joinLines(comments.CommentMap[secretName.PkgPath()+"."+name])
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

// referencedScalars returns the names of the scalars that a document refers to.
// SecretName is always among them.
func referencedScalars(root *jsonschema.Schema) []string {
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

// addDefinition adds definitions of the type of v, and of the types in it, to
// root. It restricts one property of v to a constant. Several ops may share a
// type only if they have the same constant.
func (r *reflector) addDefinition(root *jsonschema.Schema, v any, property string, constant any) (ref, error) {
	name := reflect.TypeOf(v).Name()
	if existing := root.Definitions[name]; existing == nil {
		for name, definition := range r.Reflect(v).Definitions {
			if root.Definitions[name] == nil {
				root.Definitions[name] = definition
			}
		}
		if r.err != nil {
			return ref{}, r.err
		}
	}
	constProperty, ok := root.Definitions[name].Properties.Get(property)
	if !ok {
		return ref{}, fmt.Errorf("%s has no %s", name, property)
	}
	if constProperty.Const != nil && constProperty.Const != constant {
		return ref{}, fmt.Errorf("%s stands for two messages, with %s %v and %v", name, property, constProperty.Const, constant)
	}
	constProperty.Const = constant
	return ref{"#/$defs/" + name}, nil
}
