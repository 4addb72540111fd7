package broker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// TestDeniedAnswerDoesNotDependOnSecrets requests two names that are not on the allowlist. It
// does so before a push, after a push of one of the two secrets, and after a clear. All answers
// to the same kind of request must be identical, apart from the name and the generation.
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
					// Ignore the generation. It is not secret, because each client can also
					// get the generation from a watch.
					answer = answer[:i] + answer[strings.IndexByte(answer[i:], ',')+i:]
				}
				answer = strings.ReplaceAll(answer, name, "NAME")
				if !strings.Contains(answer, `"code":"denied"`) {
					t.Fatalf("%s: the answer to %s is %s", when, name, answer)
				}
				if first, ok := answers[request]; ok && first != answer {
					t.Errorf("%s: the answer to %s is\n%s\nbut the first answer was\n%s", when, name, answer, first)
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

// TestProjectSocketRefusesAdminOperations sends to a project socket each op that only the admin
// socket has. The broker must refuse each of these requests, and the secrets must not change.
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
			t.Errorf("the answer to %s on a project socket is %s", op.Op, answer)
		}
	}
	if answer := connect(t, s.projectSocket("api")).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
		t.Errorf("after the refused requests, the secret has changed: the answer to get is %s", answer)
	}
}
