package sidecar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// A HealthError is a problem that CheckHealth has found, with a hint. Some of the problems that
// CheckHealth returns have other types.
type HealthError struct {
	Problem string
	Hint    string // what the owner can do, or ""
}

func (e *HealthError) Error() string { return e.Problem }

// ErrNoSidecar is the problem that CheckHealth returns if no sidecar is connected to the broker.
var ErrNoSidecar = errors.New("no sidecar is connected to the broker, so a change in the store has no effect")

// CheckHealth checks that the store is readable, that all files of the store are usable, that the
// secrets in the broker have exactly the same names as the secrets in the store, that a sidecar is
// connected and is not stopped, that the broker refuses no sidecar, and that no sidecar has a
// problem with its store. CheckHealth cannot compare the values of the secrets, because the admin
// socket never returns values.
//
// CheckHealth returns the problems that it has found. It ends early if it cannot read the store, if a
// request to the broker fails, or if the broker has no secrets. count is then 0. Otherwise count is the
// number of secrets in the store.
func CheckHealth(ctx context.Context, read ReadFunc, socket, tokenFile string) (count int, problems []error) {
	reading, err := read(ctx, store.LockedReading{})
	if err != nil {
		return 0, []error{&HealthError{"cannot read the store: " + err.Error(), hintFor(err)}}
	}
	defer reading.Set.Free()
	for _, path := range slices.Sorted(maps.Keys(reading.Unusable)) {
		reason := reading.Unusable[path]
		problems = append(problems, &HealthError{fmt.Sprintf("cannot use %s: %s", path, reason), hintForReason(reason, path)})
	}
	conn := connection{socket: socket, tokenFile: tokenFile}
	status, err := conn.dial(ctx, 0)
	if err != nil {
		return 0, append(problems, err)
	}
	defer conn.close()
	if status.RefusedSidecars > 0 {
		problems = append(problems, errors.New("several sidecars are connected to this broker, but the broker accepts the secrets of only one: stop all sidecars of this broker except one"))
	}
	// AdminConnections includes the connection of this function, and EventReaders counts the
	// connections of keyhatchctl events. A sidecar keeps its connection open.
	if status.SidecarPID == 0 && status.AdminConnections-status.EventReaders <= 1 {
		problems = append(problems, ErrNoSidecar)
	}
	pid := visiblePID(status.SidecarPID)
	if pid != 0 && isStopped(pid) {
		problems = append(problems, &HealthError{fmt.Sprintf("the sidecar (pid %d) is stopped, so a change in the store has no effect", pid),
			fmt.Sprintf("if Ctrl-Z has stopped the sidecar, run fg in its terminal; otherwise run kill -CONT %d", pid)})
	}
	if status.Generation == 0 {
		return 0, append(problems, errors.New("the broker has no secrets: no sidecar has pushed since the broker was started or cleared"))
	}
	var pushed []schema.SecretName
	if err := conn.call(func(admin *client.Admin) (err error) {
		pushed, err = admin.List(ctx)
		return err
	}); err != nil {
		return 0, append(problems, err)
	}
	stored := reading.Set.Names()
	added, removed := difference(stored, pushed), difference(pushed, stored)
	if len(reading.Unusable) > 0 {
		removed = nil // the broker may have old values of unusable files
	}
	if len(added) > 0 || len(removed) > 0 {
		problems = append(problems, differentNames(added, removed, pid))
	}
	if len(problems) == 0 && status.StoreProblems > 0 {
		problems = append(problems, &HealthError{"the sidecar reports a problem with its store that health did not find",
			"read the sidecar's log; the store or a bundle may have been replaced, or the sidecar may run as a user who cannot read all files of the store, or with another --store"})
	}
	return len(stored), problems
}

// difference returns the elements of names that other does not contain. other must be sorted.
func difference(names, other []schema.SecretName) (only []schema.SecretName) {
	for _, name := range names {
		if _, exists := slices.BinarySearch(other, name); !exists {
			only = append(only, name)
		}
	}
	return only
}

// differentNames returns the problem that some secrets are only in the store (added) or only in
// the broker (removed). pid is the pid of the sidecar, or 0 if it is unknown.
func differentNames(added, removed []schema.SecretName, pid int) *HealthError {
	var parts []string
	if len(added) > 0 {
		parts = append(parts, "only in the store: "+nameList(added))
	}
	hint := "read the sidecar's log"
	if len(removed) > 0 {
		parts = append(parts, "only in the broker: "+nameList(removed))
		hint = confirmHint(pid)
	}
	return &HealthError{"the secrets in the store and in the broker differ, or --store is not the sidecar's store: " + strings.Join(parts, "; "), hint}
}

// maxListedNames is the maximum number of names that nameList returns. After these names, it returns
// only the number of the remaining names.
const maxListedNames = 10

func nameList(names []schema.SecretName) string {
	var texts []string
	for _, name := range names[:min(len(names), maxListedNames)] {
		texts = append(texts, string(name))
	}
	if more := len(names) - maxListedNames; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, ", ")
}

// isStopped reports whether a signal, for example of Ctrl-Z, has stopped a process.
func isStopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// The name of the process is in parentheses, before the state.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	return err == nil && len(fields) > 0 && fields[0] == "T"
}

// visiblePID returns pid if a sidecar has this pid in the pid namespace of this process. Otherwise
// visiblePID returns 0. The broker reports a pid of the broker's pid namespace, which can be different.
func visiblePID(pid int32) int {
	// The kernel shortens the name of a process to 15 characters.
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || string(name) != "keyhatch-sideca\n" {
		return 0
	}
	return int(pid)
}
