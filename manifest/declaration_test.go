package manifest

import (
	"reflect"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// FuzzDeclaration checks that Encode either returns an error or keeps the manifest's text
// exactly. For a valid manifest, Encode must not return an error.
func FuzzDeclaration(f *testing.F) {
	for _, text := range []string{
		"a\n", "a", " a\n", "\n a\n", "\n\n  # c\n", "a \n", "\ta\n", "a\r\nb\r\n", "---\na\n...\n", "# c\n\n\n",
		"\u00e9\u2028\u0085b", "\ufeffa\n", "a: |\n  x\n  y\n", "%YAML 1.2\n---\na\n", "\x7f\n", "'\"\\\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := Declaration{Name: "api", Path: "/x/api", AllowUIDs: []uint32{0, 1000}, DevcontainerIDs: []schema.DevcontainerID{"0"}, Manifest: text}
		encoded, err := d.Encode()
		if err != nil {
			if _, wrong := Parse([]byte(text)); wrong == nil {
				t.Errorf("Encode refuses a valid manifest: %q: %v", text, err)
			}
			return
		}
		got, err := ParseDeclaration(encoded, "api")
		if err != nil || !reflect.DeepEqual(got, d) {
			t.Errorf("%q was parsed as %+v, %v:\n%s", text, got, err, encoded)
		}
	})
}
