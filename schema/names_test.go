package schema_test

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// TestNamesMatchTheirPatterns checks that the functions that validate names accept the
// same names as the published patterns.
func TestNamesMatchTheirPatterns(t *testing.T) {
	secret := regexp.MustCompile(schema.SecretNamePattern)
	project := regexp.MustCompile(schema.ProjectNamePattern)
	devcontainer := regexp.MustCompile(schema.DevcontainerIDPattern)
	check := func(name string) {
		t.Helper()
		if got, want := schema.ValidSecretName(name), secret.MatchString(name); got != want {
			t.Errorf("ValidSecretName(%q) is %v, want the result %v of the published pattern", name, got, want)
		}
		if got, want := schema.ValidDevcontainerID(schema.DevcontainerID(name)), devcontainer.MatchString(name); got != want {
			t.Errorf("ValidDevcontainerID(%q) is %v, want the result %v of the published pattern", name, got, want)
		}
		if schema.ValidSecretName(name) != schema.ValidSecretName([]byte(name)) {
			t.Errorf("ValidSecretName(%q) returns different results for a string and for a byte slice", name)
		}
		if got, want := schema.ValidProjectName(name), project.MatchString(name); got != want {
			t.Errorf("ValidProjectName(%q) is %v, want the result %v of the published pattern", name, got, want)
		}
	}
	for _, name := range []string{
		"", "a", "A", "0", "_", ".", "-", "a.", "a-", "a_", "_a", ".a", "-a", "a b", "a/b", "..", "a..b",
		"NPM_TOKEN", "api", "api-2", "a\n", "\na", "a\x00", "é", "aé", "\xff", "a\xff", "a:b", "A-", "a@", "a[", "a`", "a{",
		strings.Repeat("a", 64), strings.Repeat("a", 65), strings.Repeat("a", 128), strings.Repeat("a", 129),
		strings.Repeat("é", 64), strings.Repeat("0v", 26), strings.Repeat("0v", 26) + "0", strings.Repeat("0v", 25) + "w0",
	} {
		check(name)
	}
	random := rand.New(rand.NewPCG(1, 2))
	const alphabet = "aAzZ09_.-/ \n\x00@[`{:é"
	for range 20_000 {
		name := make([]byte, random.IntN(6))
		for i := range name {
			name[i] = alphabet[random.IntN(len(alphabet))]
		}
		check(string(name))
		check(strings.Repeat("a", 60+random.IntN(70)) + string(name))
	}
}

func TestNameValidation(t *testing.T) {
	for name, want := range map[string][2]bool{ // whether ValidSecretName accepts the name, and whether ValidProjectName accepts the name
		"a": {true, true}, "A": {true, false}, "_a": {true, false}, "0": {true, true},
		"a.b": {true, false}, "a-b_c": {true, true}, "": {false, false}, "-a": {false, false}, "a\n": {false, false},
		strings.Repeat("a", 64): {true, true}, strings.Repeat("a", 65): {true, false}, strings.Repeat("a", 129): {false, false},
	} {
		if schema.ValidSecretName(name) != want[0] || schema.ValidProjectName(name) != want[1] {
			t.Errorf("ValidSecretName(%[1]q) must return %[2]v, and ValidProjectName(%[1]q) must return %[3]v", name, want[0], want[1])
		}
	}
}
