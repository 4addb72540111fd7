package broker_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
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

// TestDeclaredProjects declares projects, changes the declarations, and restarts the broker. The
// broker must serve the declared projects after every start, even if the file descriptor store is
// empty. ApplyDeclarations must apply changes, and invalid files must not affect other projects.
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
		t.Fatalf("after the first start, the served projects are %s", got)
	}
	m.register("run", "A")
	err := s.ApplyDeclarations()
	for _, want := range []string{"empty.yaml", "broken.yaml", "unknown.yaml: line 2: ", "other.yaml", "UPPER.yaml", "bad.yaml"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not mention %s: %v", want, err)
		}
	}

	// Change the file of api, make the file of web invalid, and add a file for new, which
	// is removed later.
	m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/api", AllowUIDs: []uint32{1000}, Manifest: manifestText("api", "B")})
	m.writeDeclarationFile("web.yaml", "broken")
	m.declare(manifest.Declaration{Name: "new", Path: "/nowhere/new", Manifest: manifestText("new", "A")})
	s.ApplyDeclarations()
	if got := names(); got != "api! new! run web!" {
		t.Errorf("after the files were changed, the served projects are %s", got)
	}
	m.push(tripwire)
	for request, want := range map[string]string{"A": "denied", "B": tripwire} {
		if answer := connect(t, m.projectSocket("api")).request(t, `{"op":"get","name":"`+request+`"}`); !strings.Contains(answer, want) {
			t.Errorf("the answer to a get of %s is %s", request, answer)
		}
	}
	os.Remove(m.dir + "/projects.d/new.yaml")
	s.ApplyDeclarations()
	if got := names(); got != "api! run web!" {
		t.Errorf("after new.yaml was removed, the served projects are %s", got)
	}

	// All projects survive a restart. Only declared projects survive a stop of the
	// service.
	s.Shutdown(context.Background())
	s = m.start()
	if got := names(); got != "api! run web!" {
		t.Errorf("after a restart, the served projects are %s", got)
	}
	s.Shutdown(context.Background())
	m.dropStore()
	m.declare(manifest.Declaration{Name: "web", Path: "/nowhere/web", Manifest: manifestText("web", "A")})
	s = m.start()
	if got := names(); got != "api! web!" {
		t.Errorf("after a stop, the served projects are %s", got)
	}

	// The broker must not apply declarations that other users can write, and must keep the
	// registrations. Otherwise these users could add secrets to an allowlist.
	for _, path := range []string{"/projects.d/web.yaml", "/projects.d"} {
		if err := os.Chmod(m.dir+path, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := s.ApplyDeclarations(); err == nil || !strings.Contains(err.Error(), "must not be writable by other users") {
			t.Errorf("ApplyDeclarations does not refuse %s with mode 0777: the error is %v", path, err)
		}
		if got := names(); got != "api! web!" {
			t.Errorf("with insecure file modes, the served projects are %s", got)
		}
		if err := os.Chmod(m.dir+path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMissingProjectsDirectory moves the directory of declared projects away. The broker must
// continue to serve all declared projects, also after a restart, and report the problem. With an
// empty directory, the broker must remove all declared projects.
func TestMissingProjectsDirectory(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	if err := s.ApplyDeclarations(); err != nil {
		t.Errorf("without a declared project, the error for a missing directory is %v", err)
	}
	m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/api", Manifest: manifestText("api", "A")})
	s.ApplyDeclarations()
	dir := m.dir + "/projects.d"
	if err := os.Rename(dir, dir+".moved"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err := s.ApplyDeclarations()
		status := s.Status()
		if err == nil || !strings.Contains(err.Error(), dir+" is missing") || len(status.Projects) != 1 || !status.Projects[0].Declared {
			t.Errorf("without the directory, the error is %v, and the projects are %+v", err, status.Projects)
		}
		if len(status.Problems) != 1 || !strings.Contains(status.Problems[0].Message, dir+" is missing") {
			t.Errorf("without the directory, the problems are %+v", status.Problems)
		}
		s.Shutdown(context.Background())
		s = m.start()
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.ApplyDeclarations(); err != nil || len(s.Status().Projects) != 0 {
		t.Errorf("with an empty directory, the error is %v, and the projects are %+v", err, s.Status().Projects)
	}
}

// TestTwoDeclarationsOfOnePath declares the same path under two names. Only one declaration can
// be in effect. The status must report the other declaration as a problem.
func TestTwoDeclarationsOfOnePath(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	check := func(when, served, problem string) {
		t.Helper()
		status := s.Status()
		if len(status.Projects) != 1 || string(status.Projects[0].Name) != served || !status.Projects[0].Declared {
			t.Errorf("%s, the projects are %+v, want only %s", when, status.Projects, served)
		}
		if problem == "" && status.Problems == nil {
			return
		}
		if len(status.Problems) != 1 || status.Problems[0].Project != problem || status.Problems[0].Problem != schema.ProblemNotApplied ||
			!strings.Contains(status.Problems[0].Message, served+".yaml declares the same path and is in effect: remove one of the two files") {
			t.Errorf("%s, the problems are %+v", when, status.Problems)
		}
	}
	m.declare(manifest.Declaration{Name: "web", Path: "/nowhere/app", Manifest: manifestText("web", "A")})
	s.ApplyDeclarations()
	m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/app", Manifest: manifestText("api", "A", "B")})
	s.ApplyDeclarations()
	check("after SIGHUP", "web", "api")
	s.Shutdown(context.Background())
	s = m.start()
	check("after a restart", "web", "api")
	s.Shutdown(context.Background())
	m.dropStore()
	s = m.start()
	check("after a stop", "api", "web")
	if err := os.Remove(m.dir + "/projects.d/api.yaml"); err != nil {
		t.Fatal(err)
	}
	s.ApplyDeclarations()
	check("after one file was removed", "web", "")
}
