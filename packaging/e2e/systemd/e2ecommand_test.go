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

// tripwire is a word that every value of a secret contains. No other text contains this word.
const tripwire = "TRIPWIRE"

const adminSocket = "/run/keyhatch/admin/admin.sock"

// runE2ECommand runs a subcommand of the program e2e and prints the subcommand's result as
// JSON. The program e2e is this test binary, which the tests copy into the machine.
func runE2ECommand(name string, args []string) {
	var result any
	var err error
	switch name {
	case "load":
		result = runLoad(args[0])
	case "restart":
		result, err = restartRepeatedly(args[0])
	case "repeat-get":
		result, err = repeatGet(args[0], args[1])
	case "repeat-clear":
		result, err = repeatClear(args[0])
	case "time-get":
		result = timeGet(args[0])
	case "memory":
		result = bestKernelMemory()
	default:
		err = errors.New("unknown e2e command: " + name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(result)
}

// repeatClear clears the broker's secrets count times. Each clear causes one audit event.
func repeatClear(count string) (int, error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return 0, err
	}
	admin, err := client.DialAdmin(context.Background(), adminSocket)
	if err != nil {
		return 0, err
	}
	defer admin.Close()
	for range n {
		if err := admin.Clear(context.Background()); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// getTimeout is the maximum time that a client of a load waits for a secret.
const getTimeout = 15 * time.Second

// A loadResult contains the number of gets of a load and the duration of the slowest get.
// It does not contain a secret.
type loadResult struct {
	Gets, Failed int
	FirstError   string
	Slowest      time.Duration
}

// getSecret gets the secret A and checks its value.
func getSecret(socket string, wait time.Duration) error {
	answer, err := client.NewProject(socket).Get(context.Background(), "A", wait)
	if err == nil && (answer.Value == nil || !strings.HasPrefix(*answer.Value, tripwire)) {
		err = errors.New("get did not return the pushed value")
	}
	return err
}

// runLoad gets the secret A once and prints a line. Then four concurrent clients get the
// secret again and again until the standard input of the process ends. After that, each
// client gets the secret once more.
func runLoad(socket string) loadResult {
	if err := getSecret(socket, getTimeout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("begun")
	var inputEnded atomic.Bool
	go func() { // this goroutine ends when standard input ends
		io.Copy(io.Discard, os.Stdin)
		inputEnded.Store(true)
	}()
	var mu sync.Mutex
	var r loadResult
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for last := false; !last; {
				last = inputEnded.Load()
				start := time.Now()
				err := getSecret(socket, getTimeout)
				mu.Lock()
				r.Gets++
				r.Slowest = max(r.Slowest, time.Since(start))
				if err != nil {
					if r.Failed == 0 {
						r.FirstError = err.Error()
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

// repeatGet gets the secret A several times. A get does not wait for a missing secret.
// repeatGet returns how often each outcome happened. An outcome is "ok", an error code, or
// the text of another error.
func repeatGet(socket, times string) (map[string]int, error) {
	n, err := strconv.Atoi(times)
	results := map[string]int{}
	for range n {
		results[outcome(getSecret(socket, 0))]++
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

// A timedGet contains the outcome and the duration of one get.
type timedGet struct {
	Outcome string
	Took    time.Duration
}

func timeGet(socket string) timedGet {
	start := time.Now()
	err := getSecret(socket, 0)
	return timedGet{outcome(err), time.Since(start)}
}

// bestKernelMemory returns the best kind of memory for secrets that this kernel supports.
func bestKernelMemory() schema.Memory {
	fd, err := unix.MemfdSecret(0)
	if err != nil {
		return schema.MemoryLocked
	}
	unix.Close(fd)
	return schema.MemorySecret
}

// A restartResult contains, for each restart, the time until the secrets were loaded again.
type restartResult struct{ RecoveryTimes []time.Duration }

// restartRepeatedly alternately restarts and kills the daemon, at random moments. It also
// registers a new project before restart 0, 10, 20, and so on.
func restartRepeatedly(times string) (r restartResult, err error) {
	n, err := strconv.Atoi(times)
	if err != nil {
		return r, err
	}
	before, err := waitForSecrets("")
	if err != nil {
		return r, err
	}
	for i := range n {
		if i%10 == 0 {
			if err := registerProject(i / 10); err != nil {
				return r, fmt.Errorf("before restart %d: %w", i, err)
			}
		}
		// Wait for a random time, so that the restart happens at a random moment.
		time.Sleep(rand.N(100 * time.Millisecond))
		args := []string{"restart", "keyhatch.service"}
		if i%2 == 1 {
			args = []string{"kill", "--signal=KILL", "--kill-who=main", "keyhatch.service"}
		}
		start := time.Now()
		if out, err := exec.Command("systemctl", args...).CombinedOutput(); err != nil {
			return r, fmt.Errorf("restart %d: %w: %s", i, err, out)
		}
		after, err := waitForSecrets(before.InstanceID)
		if err != nil {
			return r, fmt.Errorf("restart %d: %w", i, err)
		}
		r.RecoveryTimes = append(r.RecoveryTimes, after.SecretsLoadedAt.Sub(start))
		before = after
	}
	return r, nil
}

// waitForSecrets waits until a new daemon has loaded secrets. The argument is the instance ID of
// the old daemon. After 20 seconds, waitForSecrets returns an error.
func waitForSecrets(instance string) (schema.StatusResponse, error) {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		status, err := fetchStatus()
		if err == nil && status.InstanceID != instance && status.Generation > 0 {
			return status, nil
		}
		if time.Now().After(deadline) {
			return status, fmt.Errorf("the secrets were not loaded again within 20 seconds (error of the last status request: %v)", err)
		}
	}
}

func fetchStatus() (schema.StatusResponse, error) {
	admin, err := client.DialAdmin(context.Background(), adminSocket)
	if err != nil {
		return schema.StatusResponse{}, err
	}
	defer admin.Close()
	return admin.Status(context.Background())
}

// registerProject registers a project that is not declared. The argument is the number in
// the project's name.
func registerProject(i int) error {
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
