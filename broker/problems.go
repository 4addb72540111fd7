package broker

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// findProblems compares the served projects with the declared projects, and with the
// projects that an earlier broker stored for a restart. It reads the declarations again,
// because the operator can edit them at any time.
func findProblems(r *registry, projectsDir string) (problems []schema.ProjectProblem) {
	add := func(project, path string, kind schema.ProblemKind, format string, args ...any) {
		if !schema.ValidProjectName(project) {
			project = "" // the name comes from the name of a file, which can contain any bytes
		}
		problems = append(problems, schema.ProjectProblem{Project: project, ProjectPath: path, Problem: kind, Message: escapeInvalidUTF8(fmt.Sprintf(format, args...))})
	}
	var declared map[string]manifest.Declaration
	var invalid map[string]error
	var err error
	if projectsDir != "" {
		declared, invalid, err = r.declarations.Read(projectsDir)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && projectsDir != "" {
		err = checkNotMissingLocked(r, projectsDir)
	}
	if err != nil {
		add("", "", schema.ProblemNotApplied, "cannot read the declared projects: %v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(invalid)) {
		add(name, "", schema.ProblemNotApplied, "%s.yaml is not a valid declaration: %s", name, describeWithoutSecrets(invalid[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		served := r.entries[schema.ProjectName(name)]
		if served != nil {
			differences := compareRegistrations(served.registration, registrationOf(declared[name]))
			if !served.registration.Declared {
				differences = append(differences, "persistence (the project was registered without --persist)")
			}
			if differences != nil {
				message := "the served project and its declaration differ in: " + strings.Join(differences, ", ")
				if err := r.notApplied[name]; err != nil {
					message += "; the broker cannot serve the declaration: " + describeWithoutSecrets(err)
				}
				add(name, declared[name].Path, schema.ProblemNotDeclared, "%s", message)
			}
			continue
		}
		err := r.notApplied[name]
		if u := r.unserved[schema.ProjectName(name)]; err == nil && u != nil {
			err = u.err
		}
		if err != nil {
			add(name, declared[name].Path, schema.ProblemNotApplied, "the declared project is not served: %s", describeWithoutSecrets(err))
		} else {
			add(name, declared[name].Path, schema.ProblemNotApplied, "the declaration was written, or the project was unregistered, after the broker had read the declarations")
		}
	}
	if err == nil && projectsDir != "" {
		for _, name := range slices.Sorted(maps.Keys(r.entries)) {
			_, isDeclared := declared[string(name)]
			if r.entries[name].registration.Declared && !isDeclared && invalid[string(name)] == nil {
				add(string(name), r.entries[name].registration.ProjectPath, schema.ProblemNotDeclared, "the declaration was removed, but the project is still served")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.unserved)) {
		u := r.unserved[name]
		if _, isDeclared := declared[string(name)]; !isDeclared {
			add(string(name), u.registration.ProjectPath, schema.ProblemNotRestored, "the project was registered before the broker restarted, but it is not served: %s", describeWithoutSecrets(u.err))
		}
	}
	return problems
}

// escapeInvalidUTF8 returns s if s is valid UTF-8, and otherwise s with the escape sequences of
// a Go string. The text of a JSON response must be valid UTF-8.
func escapeInvalidUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}
