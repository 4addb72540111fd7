package main

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/invopop/jsonschema"
	"github.com/keyhatch/keyhatch/schema"
)

var secretName = reflect.TypeFor[schema.SecretName]()

// A reflector is a jsonschema.Reflector that also handles the scalar types of package
// schema, unsigned integers, and the comments of fields.
type reflector struct {
	*jsonschema.Reflector
	err error // set by mapScalar if a type cannot be part of the schema
}

// newReflector returns a reflector that has read the comments of package schema. If open
// is true, objects can have unknown fields. Wire messages are open, because a later
// version can add fields. The manifest is not open, so that an editor reports a
// misspelled key.
func newReflector(open bool) (*reflector, error) {
	r := &reflector{Reflector: &jsonschema.Reflector{Anonymous: true, AllowAdditionalProperties: open}}
	if err := r.AddGoComments(secretName.PkgPath(), ".", jsonschema.WithFullComment()); err != nil {
		return nil, err
	}
	if r.CommentMap[secretName.PkgPath()+".SecretName"] == "" {
		return nil, fmt.Errorf("cannot read the comments of %[1]s: the working directory must be the directory of %[1]s", secretName.PkgPath())
	}
	r.LookupComment = r.lookupComment
	r.Mapper = r.mapScalar
	return r, nil
}

// mapScalar returns a reference for each type in scalarDefinitions, and a range for each
// unsigned integer type. For other types it returns nil.
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
		// A map whose keys do not have the type SecretName is an error, because
		// completeDocument adds the rule that all map keys are names of secrets.
		if t.Key() != secretName {
			r.err = fmt.Errorf("cannot generate a schema for %v: the keys of a map must have type SecretName", t)
		}
	}
	return nil
}

// lookupComment returns the comment of a type or a field, with each paragraph on one
// line. If the comment of a field begins with the Go name of the field, lookupComment
// replaces the Go name with the JSON name.
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

// completeDocument adds the parts that Go types cannot express, which are the definitions
// of the scalars that the document refers to, the pattern for the keys of maps, and the
// rules.
func completeDocument(root *jsonschema.Schema, rules map[string]func(*jsonschema.Schema)) error {
	comments, err := newReflector(true)
	if err != nil {
		return err
	}
	for _, name := range referencedScalars(root) {
		define, ok := scalarDefinitions[name]
		if !ok {
			if root.Definitions[name] == nil {
				return fmt.Errorf("cannot generate the JSON Schema: it refers to %s, which is not defined", name)
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
			return fmt.Errorf("cannot apply the rule for %s: the schema has no such definition or property", path)
		}
		rule(target)
	}
	return nil
}

// referencedScalars returns the names of all definitions that a document refers to. It
// always includes SecretName, because completeDocument adds references to SecretName.
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

// ref is a reference to a definition in the same document.
type ref struct {
	Ref string `json:"$ref"`
}

// addType adds the definition of v's type and of its nested types to root.
func (r *reflector) addType(root *jsonschema.Schema, v any) (ref, error) {
	name := reflect.TypeOf(v).Name()
	if existing := root.Definitions[name]; existing == nil {
		for name, definition := range r.Reflect(v).Definitions {
			if root.Definitions[name] == nil {
				root.Definitions[name] = definition
			}
		}
	}
	return ref{"#/$defs/" + name}, r.err
}

// addDefinition adds the same definitions as addType. In the definition of v's type, it
// restricts one property to a constant. Several ops can use the same type only if they use
// the same constant.
func (r *reflector) addDefinition(root *jsonschema.Schema, v any, property string, constant any) (ref, error) {
	name := reflect.TypeOf(v).Name()
	added, err := r.addType(root, v)
	if err != nil {
		return ref{}, err
	}
	constProperty, ok := root.Definitions[name].Properties.Get(property)
	if !ok {
		return ref{}, fmt.Errorf("cannot set the property %s of %s to a constant: the property does not exist", property, name)
	}
	if constProperty.Const != nil && constProperty.Const != constant {
		return ref{}, fmt.Errorf("cannot use the type %s for two messages: its property %s must be %v in one of them and %v in the other", name, property, constProperty.Const, constant)
	}
	constProperty.Const = constant
	return added, nil
}
