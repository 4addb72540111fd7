package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// TestCredentialHelpersMatchContract compares the table of credential helpers with the
// fields of schema.Helpers and with the keys that the manifest package accepts.
func TestCredentialHelpersMatchContract(t *testing.T) {
	var inTable, inSchema []string
	for _, helper := range credentialHelpers {
		inTable = append(inTable, helper.name)
		if got := helper.command(helper, nil).Name(); got != helper.name {
			t.Errorf("%s: the command is %q", helper.name, got)
		}
		if (helper.logins == nil) == (helper.secret == nil) {
			t.Errorf("%s must have exactly one of the functions logins and secret", helper.name)
		}
		if (helper.install == nil) != (helper.uninstall == nil) {
			t.Errorf("%s has only one of the functions install and uninstall", helper.name)
		}
	}
	schemaType := reflect.TypeFor[schema.Helpers]()
	for i := range schemaType.NumField() {
		field := schemaType.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		inSchema = append(inSchema, name)

		// Parse a manifest that declares only the helper with this name. In schema.Helpers, only
		// the field with this name must be set, and only the credential helper with this name must
		// use the field.
		value := "A"
		if field.Type.Kind() == reflect.Slice {
			value = "[{host: git.example, secret: A}]"
		}
		m, err := manifest.Parse([]byte("schema_version: 1\nproject: api\nsecrets: {A: }\nhelpers: {" + name + ": " + value + "}\n"))
		if err != nil {
			t.Errorf("the manifest does not accept %s: %v", name, err)
			continue
		}
		for i := range schemaType.NumField() {
			if set := !reflect.ValueOf(*m.Helpers).Field(i).IsZero(); set != (schemaType.Field(i).Name == field.Name) {
				t.Errorf("helpers: {%s: %s}: the field %s of schema.Helpers is set: %v", name, value, schemaType.Field(i).Name, set)
			}
		}
		for _, helper := range credentialHelpers {
			uses := helper.logins != nil && len(helper.logins(*m.Helpers)) > 0 || helper.secret != nil && helper.secret(*m.Helpers) != ""
			if uses != (helper.name == name) {
				t.Errorf("helpers: {%s: %s}: the credential helper %s uses the field: %v", name, value, helper.name, uses)
			}
		}
	}
	slices.Sort(inTable)
	slices.Sort(inSchema)
	if !slices.Equal(inTable, inSchema) {
		t.Errorf("credentialHelpers has %v, but schema.Helpers has %v", inTable, inSchema)
	}

	// The error for an unknown key lists the keys that are accepted.
	_, err := manifest.Parse([]byte("schema_version: 1\nproject: api\nsecrets: {}\nhelpers: {unknown: A}\n"))
	if err == nil {
		t.Fatal("the manifest accepts an unknown helper")
	}
	_, accepted, found := strings.Cut(err.Error(), "the keys are ")
	if !found {
		t.Fatalf("the error for an unknown helper lists no keys: %v", err)
	}
	if inManifest := strings.Split(accepted, ", "); !slices.Equal(inManifest, inSchema) {
		t.Errorf("the manifest accepts %v, but schema.Helpers has %v", inManifest, inSchema)
	}
}
