package broker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// TestDeniedAnswerDoesNotDependOnSecrets asks for names outside the allowlist before a push,
// with and without such a secret, and after a clear: the answers are the same
// bytes but for the name.
func TestDeniedAnswerDoesNotDependOnSecrets(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	c := connect(t, s.projectSocket("api"))
	answers := map[string]string{}
	askAll := func(when string) {
		for _, name := range []string{"THERE", "ABSENT"} {
			for _, request := range []string{
				`{"op":"get","name":"NAME"}`, `{"op":"get","name":"NAME","wait_ms":300000}`,
				`{"op":"get-many","names":["NAME"],"wait_ms":300000}`,
			} {
				answer := c.request(t, strings.ReplaceAll(request, "NAME", name))
				if i := strings.Index(answer, `"generation":`); i >= 0 {
					// Which generation is loaded is no secret: watch says it.
					answer = answer[:i] + answer[strings.IndexByte(answer[i:], ',')+i:]
				}
				answer = strings.ReplaceAll(answer, name, "NAME")
				if !strings.Contains(answer, `"code":"denied"`) {
					t.Fatalf("%s: %s is answered %s", when, name, answer)
				}
				if first, ok := answers[request]; ok && first != answer {
					t.Errorf("%s: %s is answered\n%s, before\n%s", when, name, answer, first)
				}
				answers[request] = answer
			}
		}
	}
	askAll("before a push")
	s.push(t, map[schema.SecretName]schema.Value{"THERE": {Text: tripwire}})
	askAll("after a push")
	if err := s.dialAdmin(t).Clear(context.Background()); err != nil {
		t.Fatal(err)
	}
	askAll("after a clear")
}

// TestProjectSocketRefusesAdminOperations tries every admin op with a request that the
// admin socket takes.
func TestProjectSocketRefusesAdminOperations(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	s.push(t, map[schema.SecretName]schema.Value{"A": {Text: tripwire}})
	own := map[schema.Op]bool{}
	for _, op := range schema.ProjectOperations {
		own[op.Op] = true
	}
	for _, op := range schema.AdminOperations {
		if own[op.Op] {
			continue
		}
		answer := connect(t, s.projectSocket("api")).request(t, fmt.Sprintf(
			`{"op":%q,"name":"api","secrets":{},"project_path":"/nowhere/api","manifest":""}`, op.Op))
		if !strings.Contains(answer, `"code":"protocol_error","message":"op must be one of the operations of the project socket:`) {
			t.Errorf("%s on a project socket is answered %s", op.Op, answer)
		}
	}
	if answer := connect(t, s.projectSocket("api")).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
		t.Errorf("something changed: %s", answer)
	}
}
