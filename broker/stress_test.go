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

// TestEverythingAtOnce has all ops run into each other, well and badly, and the
// server end in the midst of it. Every value that is ever answered is whole and
// of one push; nothing hangs, and nothing is left running.
func TestEverythingAtOnce(t *testing.T) {
	before, lockedBefore := runtime.NumGoroutine(), lockedMemory(t)
	s := newServerWith(t, func(c *broker.Config) { c.RequestRate, c.RefusalRate = 5000, 20 })
	s.register(t, "api", "A", "B")
	rounds := 300
	if testing.Short() {
		rounds = 50
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	each := func(do func(n int)) {
		wg.Go(func() {
			for n := range rounds {
				do(n)
			}
		})
	}
	// Errors are expected, where things are taken away; wrong answers are not.
	admin := func(do func(*client.Admin)) {
		if a, err := client.DialAdmin(ctx, s.admin); err == nil {
			do(a)
			a.Close()
		}
	}
	value := func(n int) string { return fmt.Sprint(tripwire, n, strings.Repeat("x", n*37%5000)) }
	each(func(n int) {
		admin(func(a *client.Admin) {
			a.Push(ctx, pushLine(schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{"A": {Text: value(n)}, "B": {Text: value(n)}}}))
		})
	})
	each(func(n int) {
		if n%10 == 0 {
			admin(func(a *client.Admin) { a.Clear(ctx) })
		}
	})
	each(func(n int) {
		text := manifestOf("api", "A", "B", fmt.Sprint("C", n%2))
		admin(func(a *client.Admin) { a.Reload(ctx, schema.ReloadRequest{Name: "api", Manifest: &text}) })
	})
	each(func(n int) {
		text := manifestOf("web", "A")
		admin(func(a *client.Admin) {
			a.Register(ctx, schema.RegisterRequest{Name: "web", ProjectPath: "/nowhere/web", Manifest: &text})
			a.Status(ctx)
			a.List(ctx)
			a.Unregister(ctx, "web")
		})
	})
	whole := func(what, got string) {
		var n int
		if _, err := fmt.Sscanf(strings.TrimRight(strings.TrimPrefix(got, tripwire), "x"), "%d", &n); err != nil || got != value(n) {
			t.Errorf("%s: %d bytes that are not whole", what, len(got))
		}
	}
	api := client.NewProject(s.project("api"))
	for _, wait := range []time.Duration{0, 20 * time.Millisecond} {
		each(func(int) {
			if got, err := api.Get(ctx, "A", wait); err == nil {
				whole("get", *got.Value)
			}
		})
		each(func(int) {
			got, err := api.GetMany(ctx, []schema.SecretName{"A", "B", "DENIED"}, wait)
			if err != nil {
				return
			}
			if len(got.Secrets) == 2 {
				whole("get-many", *got.Secrets["A"].Value)
				if *got.Secrets["A"].Value != *got.Secrets["B"].Value {
					t.Error("get-many: of two pushes")
				}
			}
		})
	}
	each(func(int) {
		for _, name := range []schema.SecretName{"DENIED", "C0"} {
			if _, err := api.Get(ctx, name, 0); err == nil {
				t.Errorf("there is a %s", name)
			}
		}
	})
	web := client.NewProject(s.project("web"))
	each(func(int) {
		if got, err := web.Get(ctx, "A", 0); err == nil {
			whole("web", *got.Value)
		}
	})
	// Who asks and does not read, breaks off, or talks nonsense.
	rude := []string{`{"op":"get","name":"A"}` + "\n", `{"op":"watch"}` + "\n", `{"op":"get-many","wait_ms":1000}` + "\n", `{"op":`, "nonsense\n", `{"op":"watch"}` + "\n\n", "\xff\xfe\n"}
	each(func(n int) {
		c, err := net.Dial("unix", s.project("api"))
		if err != nil {
			return
		}
		io.WriteString(c, strings.Repeat(rude[n%len(rude)], 1+rand.IntN(20)))
		if n%3 == 0 {
			c.(*net.UnixConn).CloseWrite()
			io.Copy(io.Discard, c)
		}
		c.Close()
	})
	// Who watches: each line is JSON, and there is one for what is true in the end.
	watching, stop := context.WithCancel(ctx)
	wg.Go(func() {
		api.Watch(watching, func(e schema.ChangedEvent) {
			if _, err := json.Marshal(e); err != nil {
				t.Error(err)
			}
		})
	})
	// The end comes while most of it goes on.
	var end sync.WaitGroup
	end.Go(func() {
		until(t, func() bool { return s.Status().Generation > uint64(rounds/2) || ctx.Err() != nil })
		stop()
		s.Shutdown(ctx)
	})
	wg.Wait()
	end.Wait()
	if ctx.Err() != nil {
		t.Fatal("it hangs")
	}
	until(t, func() bool { return runtime.NumGoroutine() <= before+1 }) // the audit log's
	if after := lockedMemory(t); after != lockedBefore {
		t.Errorf("%s of locked memory before, %s after: an arena is still held", lockedBefore, after)
	}
}

// lockedMemory is what this process has of it (proc_pid_status(5)): all arenas,
// but under the race detector, where they are on the heap.
func lockedMemory(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "VmLck:")
	line, _, _ := strings.Cut(rest, "\n")
	if !found {
		t.Fatal("the kernel does not say how much memory is locked")
	}
	return strings.TrimSpace(line)
}
