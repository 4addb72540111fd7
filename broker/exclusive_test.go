package broker_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// pushAs pushes a secret with this value. It returns the code of the refusal, or "" if the broker
// accepts the push.
func pushAs(t *testing.T, admin *client.Admin, exclusive bool, value string) schema.Code {
	t.Helper()
	_, err := admin.Push(context.Background(), pushLine(schema.PushRequest{
		Secrets: map[schema.SecretName]schema.Value{"A": {Text: value}}, Exclusive: exclusive,
	}))
	if err != nil && client.CodeOf(err) == "" {
		t.Fatal(err)
	}
	return client.CodeOf(err)
}

// TestStatusReportsMissingSidecar pushes secrets as a sidecar does, and then closes the connection.
// The status must report that the sidecar is missing, until an operator has pushed other secrets.
func TestStatusReportsMissingSidecar(t *testing.T) {
	s := newServer(t)
	sidecar, operator := s.dialAdmin(t), s.dialAdmin(t)
	pushAs(t, operator, false, tripwire)
	if s.Status().SidecarMissing {
		t.Error("after the push of an operator, the status reports a missing sidecar")
	}
	pushAs(t, sidecar, true, tripwire)
	if s.Status().SidecarMissing {
		t.Error("the status reports that the connected sidecar is missing")
	}
	sidecar.Close()
	waitUntil(t, func() bool { return s.Status().SidecarMissing })
	pushAs(t, operator, false, tripwire)
	if s.Status().SidecarMissing {
		t.Error("the status reports a missing sidecar after an operator has replaced its secrets")
	}
}

// TestOneConnectionSendsExclusivePushes checks that the broker refuses the exclusive pushes of
// a second connection until the first connection ends. The broker must accept pushes that are
// not exclusive from every connection.
func TestOneConnectionSendsExclusivePushes(t *testing.T) {
	s := newServer(t)
	first, second, operator := s.dialAdmin(t), s.dialAdmin(t), s.dialAdmin(t)
	expect := func(step string, got, want schema.Code) {
		t.Helper()
		if got != want {
			t.Errorf("%s: the code is %q, want %q", step, got, want)
		}
	}
	expect("first push", pushAs(t, first, true, tripwire+"1"), "")
	expect("push of the second connection", pushAs(t, second, true, tripwire+"2"), schema.CodeConflict)
	expect("push of the operator", pushAs(t, operator, false, tripwire+"3"), "")
	expect("push of the second connection after the operator", pushAs(t, second, true, tripwire+"2"), schema.CodeConflict)
	expect("second push of the first connection", pushAs(t, first, true, tripwire+"1"), "")
	if err := operator.Clear(context.Background()); err != nil {
		t.Fatal(err)
	}
	expect("push of the second connection after a clear", pushAs(t, second, true, tripwire+"2"), schema.CodeConflict)

	status := s.Status()
	if status.Generation != 0 || status.SidecarPID != int32(os.Getpid()) || status.RefusedSidecars != 1 {
		t.Errorf("with a refused connection, the status is %+v", status)
	}
	// The broker can need some time to end the session of the first connection. Even during
	// this time, it must accept the push of the second connection.
	first.Close()
	expect("push of the second connection after the end of the first", pushAs(t, second, true, tripwire+"2"), "")
	if status := s.Status(); status.Generation != 4 || status.RefusedSidecars != 0 {
		t.Errorf("after the second connection has pushed, the status is %+v", status)
	}
	second.Close()
	waitUntil(t, func() bool { return s.Status().SidecarPID == 0 })
	if text := s.log.String(); !strings.Contains(text, `"code":"conflict"`) {
		t.Errorf("the audit log contains no refused push:\n%s", text)
	}
}

// TestRejectedPushIsNotExclusive sends invalid exclusive pushes on one connection. Another
// connection must then be able to send exclusive pushes.
func TestRejectedPushIsNotExclusive(t *testing.T) {
	s := newServer(t)
	invalid := connect(t, s.adminSocket)
	for _, line := range []string{
		`{"op":"push-creds","exclusive":true,"secrets":{"bad name":""}}`,
		`{"op":"push-creds","exclusive":"true","secrets":{"A":"` + tripwire + `"}}`,
	} {
		if answer := invalid.request(t, line); !strings.Contains(answer, `"ok":false`) || strings.Contains(answer, "conflict") {
			t.Errorf("the answer to an invalid push is %s", answer)
		}
	}
	if code := pushAs(t, s.dialAdmin(t), true, tripwire); code != "" {
		t.Errorf("after the invalid pushes, another connection gets the code %s", code)
	}
	if status := s.Status(); status.RefusedSidecars != 0 {
		t.Errorf("%d connections count as refused, want 0", status.RefusedSidecars)
	}
}

// TestRefusedConnectionIsForgotten checks that the broker counts a refused connection only
// until the connection ends.
func TestRefusedConnectionIsForgotten(t *testing.T) {
	s := newServer(t)
	first, second := s.dialAdmin(t), s.dialAdmin(t)
	pushAs(t, first, true, tripwire)
	pushAs(t, second, true, tripwire)
	second.Close()
	waitUntil(t, func() bool { return s.Status().RefusedSidecars == 0 })
}
