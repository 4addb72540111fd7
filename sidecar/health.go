package sidecar

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// A HealthError is a problem that CheckHealth has found.
type HealthError struct {
	Problem string
	Hint    string // what the owner can do, or ""
}

func (e *HealthError) Error() string { return e.Problem }

// ErrNoSidecar is the error of CheckHealth if no sidecar is running.
var ErrNoSidecar = errors.New("no sidecar is connected to the broker, so a change in the store has no effect")

// CheckHealth checks that the store is readable, that it can use all files, that the secrets
// in the broker have exactly the same names as the secrets in the store, that a sidecar is
// connected, and that the broker refuses no sidecar. It returns the number of secrets. CheckHealth
// cannot compare the values of the secrets, because the admin socket never returns values.
func CheckHealth(ctx context.Context, read ReadFunc, socket string) (count int, err error) {
	reading, err := read(ctx, store.LockedReading{})
	if err != nil {
		return 0, &HealthError{"cannot read the store: " + err.Error(), hintFor(err)}
	}
	defer reading.Set.Free()
	if n := len(reading.Unusable); n > 0 {
		path := slices.Sorted(maps.Keys(reading.Unusable))[0]
		reason := reading.Unusable[path]
		problem := fmt.Sprintf("the sidecar cannot use %s: %s", path, reason)
		if n > 1 {
			problem += fmt.Sprintf(" (and %d more)", n-1)
		}
		return 0, &HealthError{problem, hintForReason(reason)}
	}
	conn := connection{socket: socket}
	status, err := conn.dial(ctx, 0)
	if err != nil {
		return 0, err
	}
	defer conn.close()
	if status.RefusedSidecars > 0 {
		return 0, errors.New("several sidecars are connected to this broker, but the broker accepts the secrets of only one: stop all sidecars of this broker except one")
	}
	// One connection is the connection of this request. A sidecar does not close its connection.
	if status.SidecarPID == 0 && status.AdminConnections <= 1 {
		return 0, ErrNoSidecar
	}
	if status.Generation == 0 {
		return 0, errors.New("the broker has no secrets: no sidecar has pushed since the broker was started or cleared")
	}
	var names []schema.SecretName
	if err := conn.call(func(admin *client.Admin) (err error) {
		names, err = admin.List(ctx)
		return err
	}); err != nil {
		return 0, err
	}
	pushed := map[schema.SecretName]bool{}
	for _, name := range names {
		pushed[name] = true
	}
	missing := 0
	for _, name := range reading.Set.Names() {
		if !pushed[name] {
			missing++
		}
	}
	count = len(reading.Set.Names())
	if removed := len(names) - (count - missing); missing > 0 || removed > 0 {
		problem := &HealthError{Problem: fmt.Sprintf("the names of the secrets in the store and in the broker differ: %d only in the store, %d only in the broker", missing, removed),
			Hint: "read the sidecar's log"}
		if removed > 0 {
			problem.Hint = confirmHint(visiblePID(status.SidecarPID))
		}
		return 0, problem
	}
	return count, nil
}

// visiblePID returns pid if it is a sidecar in the pid namespace of this process. Otherwise it
// returns 0, because the broker can be in another pid namespace.
func visiblePID(pid int32) int {
	// The kernel shortens the name of a process to 15 characters.
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || string(name) != "keyhatch-sideca\n" {
		return 0
	}
	return int(pid)
}
