package broker_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/manifest"
)

func (m *serviceManager) declare(d manifest.Declaration) {
	m.t.Helper()
	text, err := d.Encode()
	if err != nil {
		m.t.Fatal(err)
	}
	m.writeDeclarationFile(string(d.Name)+".yaml", string(text))
}

func (m *serviceManager) writeDeclarationFile(name, text string) {
	m.t.Helper()
	if err := os.MkdirAll(m.dir+"/projects.d", 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.dir+"/projects.d/"+name, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// TestDeclaredProjects serves declared projects at the start, after a stop that emptied
// the store too, takes changes when told, and is not disturbed by bad files.
func TestDeclaredProjects(t *testing.T) {
	m := newServiceManager(t, 100)
	m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/api", AllowUIDs: []uint32{1000}, Manifest: manifestText("api", "A")})
	m.declare(manifest.Declaration{Name: "web", Path: "/nowhere/web", Manifest: manifestText("web", "A")})
	for name, text := range map[string]string{
		"empty.yaml": "", "broken.yaml": "path: [", "unknown.yaml": "path: /nowhere/unknown\nsurprise: 1\nmanifest: x\n",
		"other.yaml": "path: /nowhere/api\nmanifest: |\n  " + strings.ReplaceAll(manifestText("api", "A"), "\n", "\n  "),
		"UPPER.yaml": "path: /nowhere/UPPER\n", "README": "not read",
		"bad.yaml": "path: /nowhere/bad\nmanifest: |\n  schema_version: 2\n",
	} {
		m.writeDeclarationFile(name, text)
	}
	s := m.start()
	names := func() string {
		var list []string
		for _, p := range s.Status().Projects {
			text := string(p.Name)
			if p.Declared {
				text += "!"
			}
			list = append(list, text)
		}
		return strings.Join(list, " ")
	}
	if got := names(); got != "api! web!" {
		t.Fatalf("served: %s", got)
	}
	m.register("run", "A")
	err := s.ApplyDeclarations()
	for _, want := range []string{"empty.yaml", "broken.yaml", "unknown.yaml: line 2: ", "other.yaml", "UPPER.yaml", "bad.yaml"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error says nothing of %s: %v", want, err)
		}
	}

	// A change, a file that breaks, one that goes, and one that comes.
	m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/api", AllowUIDs: []uint32{1000}, Manifest: manifestText("api", "B")})
	m.writeDeclarationFile("web.yaml", "broken")
	m.declare(manifest.Declaration{Name: "new", Path: "/nowhere/new", Manifest: manifestText("new", "A")})
	s.ApplyDeclarations()
	if got := names(); got != "api! new! run web!" {
		t.Errorf("served: %s", got)
	}
	m.push(tripwire)
	for request, want := range map[string]string{"A": "denied", "B": tripwire} {
		if answer := connect(t, m.projectSocket("api")).request(t, `{"op":"get","name":"`+request+`"}`); !strings.Contains(answer, want) {
			t.Errorf("%s: %s", request, answer)
		}
	}
	os.Remove(m.dir + "/projects.d/new.yaml")
	s.ApplyDeclarations()
	if got := names(); got != "api! run web!" {
		t.Errorf("served: %s", got)
	}

	// A restart keeps all, and a stop what is declared.
	s.Shutdown(context.Background())
	s = m.start()
	if got := names(); got != "api! run web!" {
		t.Errorf("served after a restart: %s", got)
	}
	s.Shutdown(context.Background())
	m.dropStore()
	m.declare(manifest.Declaration{Name: "web", Path: "/nowhere/web", Manifest: manifestText("web", "A")})
	s = m.start()
	if got := names(); got != "api! web!" {
		t.Errorf("served after a stop: %s", got)
	}

	// Who could write the file or its directory would decide what is fetched.
	for _, path := range []string{"/projects.d/web.yaml", "/projects.d"} {
		if err := os.Chmod(m.dir+path, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := s.ApplyDeclarations(); err == nil || !strings.Contains(err.Error(), "must not be writable by other users") {
			t.Errorf("%s of mode 0777: %v", path, err)
		}
		if got := names(); got != "api! web!" {
			t.Errorf("served: %s", got)
		}
		if err := os.Chmod(m.dir+path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
