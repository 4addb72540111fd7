package broker_test

import (
	"context"
	"slices"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// TestStatusReportsCauseOfMissingSecrets checks that the status distinguishes a broker that
// was cleared from a broker that has never received secrets. The status also counts the
// connections to the admin socket, because a sidecar does not close its connection.
func TestStatusReportsCauseOfMissingSecrets(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	clearBroker := func(admin *client.Admin) error { return admin.Clear(context.Background()) }
	m.withAdmin(clearBroker)
	if status := s.Status(); status.SecretsClearedAt != nil {
		t.Errorf("before the first push, the time of the clear is %v", status.SecretsClearedAt)
	}
	m.push(tripwire)
	m.withAdmin(clearBroker)
	status := s.Status()
	if status.SecretsClearedAt == nil || status.Generation != 0 {
		t.Errorf("after a clear, the status is %+v", status)
	}
	m.push(tripwire)
	if status := s.Status(); status.SecretsClearedAt != nil {
		t.Errorf("after the next push, the time of the clear is %v", status.SecretsClearedAt)
	}
	m.withAdmin(func(sidecar *client.Admin) error {
		if _, err := sidecar.Ping(context.Background()); err != nil {
			return err
		}
		m.withAdmin(func(admin *client.Admin) error {
			status, err := admin.Status(context.Background())
			if status.AdminConnections < 2 {
				t.Errorf("with two connections, the status contains %d", status.AdminConnections)
			}
			return err
		})
		return nil
	})
}

func TestStatusContainsAllowedUIDs(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	text := manifestText("api", "A")
	m.withAdmin(func(admin *client.Admin) error {
		_, err := admin.Register(context.Background(), schema.RegisterRequest{Name: "api", ProjectPath: "/nowhere/api", Manifest: &text, AllowUIDs: []uint32{1000, 1001}})
		return err
	})
	if projects := s.Status().Projects; len(projects) != 1 || !slices.Equal(projects[0].AllowUIDs, []uint32{1000, 1001}) {
		t.Errorf("the projects are %+v", projects)
	}
}

// TestStatusContainsStoreProblems reports store problems on two connections. store_problems in the
// status must be the sum of the numbers that the open connections have reported last.
func TestStatusContainsStoreProblems(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	report := func(admin *client.Admin, count int) {
		t.Helper()
		if _, err := admin.ReportStoreProblems(context.Background(), count); err != nil {
			t.Fatal(err)
		}
	}
	m.withAdmin(func(one *client.Admin) error {
		report(one, 2)
		m.withAdmin(func(two *client.Admin) error {
			report(two, 3)
			// A ping contains no number of problems, so it must not change the sum.
			if _, err := two.Ping(context.Background()); err != nil {
				return err
			}
			if got := s.Status().StoreProblems; got != 5 {
				t.Errorf("the status contains %d problems, want 5", got)
			}
			report(two, 0)
			return nil
		})
		report(one, 1)
		if got := s.Status().StoreProblems; got != 1 {
			t.Errorf("the status contains %d problems, want 1", got)
		}
		report(one, -1)
		if got := s.Status().StoreProblems; got != 0 {
			t.Errorf("the status contains %d problems after a negative number, want 0", got)
		}
		report(one, 1)
		return nil
	})
	waitUntil(t, func() bool { return s.Status().StoreProblems == 0 }) // wait until the broker notices the end of the connection
}
