package systemd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// tripwire is in every secret value, and in nothing else.
const tripwire = "TRIPWIRE"

const adminSocket = "/run/keyhatch/admin/admin.sock"

// guise is what the test binary does in the machine.
func guise(name string, args []string) {
	var result any
	var err error
	switch name {
	case "load":
		result = putLoad(args[0])
	case "storm":
		result, err = storm(args[0])
	case "many":
		result, err = many(args[0], args[1])
	case "once":
		result = once(args[0])
	case "memory":
		result = kernelMemory()
	default:
		err = errors.New("there is no guise " + name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(result)
}

// getWait is how long a get of a client that waits may take.
const getWait = 15 * time.Second

// A loadResult is what became of the gets. No value is in it.
type loadResult struct {
	Gets, Failed int
	First        string // error
	Slowest      time.Duration
}

// get asks for A, and sees that it is what was pushed.
func get(socket string, wait time.Duration) error {
	answer, err := client.NewProject(socket).Get(context.Background(), "A", wait)
	if err == nil && (answer.Value == nil || !strings.HasPrefix(*answer.Value, tripwire)) {
		err = errors.New("the value is not what was pushed")
	}
	return err
}

// putLoad gets, by four clients at once, until its standard input ends, and then
// once more each. It says so when the first secret has come.
func putLoad(socket string) loadResult {
	if err := get(socket, getWait); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("begun")
	var over atomic.Bool
	go func() { // ends with standard input, at the latest with the process
		io.Copy(io.Discard, os.Stdin)
		over.Store(true)
	}()
	var mu sync.Mutex
	var r loadResult
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for last := false; !last; {
				last = over.Load()
				begin := time.Now()
				err := get(socket, getWait)
				mu.Lock()
				r.Gets++
				r.Slowest = max(r.Slowest, time.Since(begin))
				if err != nil {
					if r.Failed == 0 {
						r.First = err.Error()
					}
					r.Failed++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return r
}

// many gets a number of times, without waiting, and returns what came of it,
// with "ok" for a secret.
func many(socket, times string) (map[string]int, error) {
	n, err := strconv.Atoi(times)
	results := map[string]int{}
	for range n {
		results[outcome(get(socket, 0))]++
	}
	return results, err
}

func outcome(err error) string {
	if code := client.CodeOf(err); code != "" {
		return string(code)
	}
	if err != nil {
		return err.Error()
	}
	return "ok"
}

// An onceResult is one get.
type onceResult struct {
	Outcome string
	Took    time.Duration
}

func once(socket string) onceResult {
	begin := time.Now()
	err := get(socket, 0)
	return onceResult{outcome(err), time.Since(begin)}
}

// kernelMemory is the best kind of memory that this kernel has.
func kernelMemory() schema.Memory {
	fd, err := unix.MemfdSecret(0)
	if err != nil {
		return schema.MemoryLocked
	}
	unix.Close(fd)
	return schema.MemorySecret
}

// A stormResult says how long after each restart the secrets were back.
type stormResult struct{ Healed []time.Duration }

// storm restarts or kills the daemon at random moments, and every ten times
// registers a project.
func storm(times string) (r stormResult, err error) {
	n, err := strconv.Atoi(times)
	if err != nil {
		return r, err
	}
	before, err := healed("")
	if err != nil {
		return r, err
	}
	for i := range n {
		if i%10 == 0 {
			if err := registerAnother(i / 10); err != nil {
				return r, fmt.Errorf("before restart %d: %w", i, err)
			}
		}
		// Not a wait for anything: the moment is to be any.
		time.Sleep(rand.N(100 * time.Millisecond))
		args := []string{"restart", "keyhatch.service"}
		if i%2 == 1 {
			args = []string{"kill", "--signal=KILL", "--kill-who=main", "keyhatch.service"}
		}
		begin := time.Now()
		if out, err := exec.Command("systemctl", args...).CombinedOutput(); err != nil {
			return r, fmt.Errorf("restart %d: %w: %s", i, err, out)
		}
		after, err := healed(before.InstanceID)
		if err != nil {
			return r, fmt.Errorf("restart %d: %w", i, err)
		}
		r.Healed = append(r.Healed, after.SecretsLoadedAt.Sub(begin))
		before = after
	}
	return r, nil
}

// healed waits until another daemon than this has secrets.
func healed(instance string) (schema.StatusResponse, error) {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		status, err := askStatus()
		if err == nil && status.InstanceID != instance && status.Generation > 0 {
			return status, nil
		}
		if time.Now().After(end) {
			return status, fmt.Errorf("the secrets did not come back: %w", err)
		}
	}
}

func askStatus() (schema.StatusResponse, error) {
	admin, err := client.DialAdmin(context.Background(), adminSocket)
	if err != nil {
		return schema.StatusResponse{}, err
	}
	defer admin.Close()
	return admin.Status(context.Background())
}

// registerAnother registers a project at run time, and not for good.
func registerAnother(i int) error {
	admin, err := client.DialAdmin(context.Background(), adminSocket)
	if err != nil {
		return err
	}
	defer admin.Close()
	name := fmt.Sprintf("p%d", i)
	text := "schema_version: 1\nproject: " + name + "\nsecrets:\n  A:\n"
	_, err = admin.Register(context.Background(), schema.RegisterRequest{
		Name: schema.ProjectName(name), ProjectPath: "/srv/" + name, Manifest: &text,
	})
	return err
}
