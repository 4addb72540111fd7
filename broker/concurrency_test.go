package broker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// TestConcurrentOperations runs many operations concurrently, with valid and invalid requests,
// and shuts the server down while operations still run. Every returned value must be complete,
// and all values of an answer must come from one push. All operations must end, and no goroutine
// and no locked memory of the server may remain.
func TestConcurrentOperations(t *testing.T) {
	before, lockedBefore := runtime.NumGoroutine(), lockedMemory(t)
	s := newServerWithConfig(t, func(c *broker.Config) { c.RequestRate, c.RefusalRate = 5000, 20 })
	s.register(t, "api", "A", "B")
	rounds := 300
	if testing.Short() {
		rounds = 50
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	repeat := func(do func(n int)) {
		wg.Go(func() {
			for n := range rounds {
				do(n)
			}
		})
	}
	// This test accepts errors, because other goroutines remove secrets and projects. It
	// does not accept wrong answers.
	admin := func(do func(*client.Admin)) {
		if a, err := client.DialAdmin(ctx, s.adminSocket); err == nil {
			do(a)
			a.Close()
		}
	}
	value := func(n int) string { return fmt.Sprint(tripwire, n, strings.Repeat("x", n*37%5000)) }
	repeat(func(n int) {
		admin(func(a *client.Admin) {
			a.Push(ctx, pushLine(schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{"A": {Text: value(n)}, "B": {Text: value(n)}}}))
		})
	})
	repeat(func(n int) {
		if n%10 == 0 {
			admin(func(a *client.Admin) { a.Clear(ctx) })
		}
	})
	repeat(func(n int) {
		text := manifestText("api", "A", "B", fmt.Sprint("C", n%2))
		admin(func(a *client.Admin) { a.Reload(ctx, schema.ReloadRequest{Name: "api", Manifest: &text}) })
	})
	repeat(func(n int) {
		text := manifestText("web", "A")
		admin(func(a *client.Admin) {
			a.Register(ctx, schema.RegisterRequest{Name: "web", ProjectPath: "/nowhere/web", Manifest: &text})
			a.Status(ctx)
			a.List(ctx)
			a.Unregister(ctx, "web")
		})
	})
	checkComplete := func(what, got string) {
		var n int
		if _, err := fmt.Sscanf(strings.TrimRight(strings.TrimPrefix(got, tripwire), "x"), "%d", &n); err != nil || got != value(n) {
			t.Errorf("%s returned an incomplete value of %d bytes", what, len(got))
		}
	}
	api := client.NewProject(s.projectSocket("api"))
	for _, wait := range []time.Duration{0, 20 * time.Millisecond} {
		repeat(func(int) {
			if got, err := api.Get(ctx, "A", wait); err == nil {
				checkComplete("get", *got.Value)
			}
		})
		repeat(func(int) {
			got, err := api.GetMany(ctx, []schema.SecretName{"A", "B", "DENIED"}, wait)
			if err != nil {
				return
			}
			if len(got.Secrets) == 2 {
				checkComplete("get-many", *got.Secrets["A"].Value)
				if *got.Secrets["A"].Value != *got.Secrets["B"].Value {
					t.Error("get-many: the values come from two different pushes")
				}
			}
		})
	}
	repeat(func(int) {
		for _, name := range []schema.SecretName{"DENIED", "C0"} {
			if _, err := api.Get(ctx, name, 0); err == nil {
				t.Errorf("get returned %s, which was never pushed", name)
			}
		}
	})
	web := client.NewProject(s.projectSocket("web"))
	repeat(func(int) {
		if got, err := web.Get(ctx, "A", 0); err == nil {
			checkComplete("get in project web", *got.Value)
		}
	})
	// Connect with clients that do not read their answers, close the connection early, or
	// send invalid lines.
	badRequests := []string{`{"op":"get","name":"A"}` + "\n", `{"op":"watch"}` + "\n", `{"op":"get-many","wait_ms":1000}` + "\n", `{"op":`, "nonsense\n", `{"op":"watch"}` + "\n\n", "\xff\xfe\n"}
	repeat(func(n int) {
		c, err := net.Dial("unix", s.projectSocket("api"))
		if err != nil {
			return
		}
		io.WriteString(c, strings.Repeat(badRequests[n%len(badRequests)], 1+rand.IntN(20)))
		if n%3 == 0 {
			c.(*net.UnixConn).CloseWrite()
			io.Copy(io.Discard, c)
		}
		c.Close()
	})
	// Watch the project with another client.
	watching, stop := context.WithCancel(ctx)
	wg.Go(func() {
		api.Watch(watching, func(e schema.ChangedEvent) {
			if _, err := json.Marshal(e); err != nil {
				t.Error(err)
			}
		})
	})
	// Begin the shutdown while most of the operations are still running.
	var end sync.WaitGroup
	end.Go(func() {
		waitUntil(t, func() bool { return s.Status().Generation > uint64(rounds/2) || ctx.Err() != nil })
		stop()
		s.Shutdown(ctx)
	})
	wg.Wait()
	end.Wait()
	if ctx.Err() != nil {
		t.Fatal("the operations or the shutdown took longer than one minute")
	}
	// The one additional goroutine belongs to the audit log.
	waitUntil(t, func() bool { return runtime.NumGoroutine() <= before+1 })
	if after := lockedMemory(t); after != lockedBefore {
		t.Errorf("the process had %s of locked memory before the test and has %s after it: an arena was not freed", lockedBefore, after)
	}
}

// lockedMemory returns the amount of this process's locked memory (proc_pid_status(5)).
// Locked memory includes all arenas, except in a build with the race detector, in which
// arenas are on the heap.
func lockedMemory(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "VmLck:")
	line, _, _ := strings.Cut(rest, "\n")
	if !found {
		t.Fatal("cannot find VmLck in /proc/self/status")
	}
	return strings.TrimSpace(line)
}
