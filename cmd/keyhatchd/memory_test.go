package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// TestClearLeavesNoCopyInMemory pushes 100 random values, fetches values 300 times, and clears
// the secrets. It counts the copies of the values in the memory that another process can read.
// While the values are loaded, there must be one copy of each value if the daemon uses mlock, and
// no copy if the daemon uses memfd_secret. Within a second after the clear, there must be no
// copy.
func TestClearLeavesNoCopyInMemory(t *testing.T) {
	testenv.RequireMemoryAccess(t)
	for _, c := range []struct{ role, memory string }{
		{"keyhatchd", "memfd_secret"},
		{"keyhatchd-without-memfd-secret", "mlock"},
	} {
		t.Run(c.role, func(t *testing.T) {
			dir := newRuntimeDir(t)
			d := startDaemon(t, c.role, dir, "--request-rate", "0") // no limit, because the test sends more requests than the default limit allows
			status := sendRequest(t, d.adminSocket(), `{"op":"status"}`)
			if strings.Contains(status, `"memory":"heap"`) {
				t.Skip("a build for the race detector stores secrets on the heap")
			}
			testenv.Require(t, strings.Contains(status, `"memory":"`+c.memory+`"`), "the kernel does not provide "+c.memory)
			values := randomValues(100)
			registerNames(t, d, "api", len(values))
			pushAndFetch(t, d.adminSocket(), d.projectSocket("api"), values)

			counts := countCopies(t, d.cmd.Process.Pid, values)
			for i, n := range counts {
				// countCopies cannot read memfd_secret memory, so it sees only copies in other
				// memory.
				if want := map[string]int{"mlock": 1}[c.memory]; n != want {
					t.Errorf("while value %d is loaded, it has %d visible copies, want %d", i, n, want)
				}
			}
			// Each of these requests contains a value, but is not a valid push. After the answer,
			// the buffer of the open connection must not contain the value.
			for _, push := range []string{
				`{"op":"push-creds","secrets":{"A":"` + string(values[0]) + `","B":5}}`,
				`{"op":"push-creds","secrets":{"A":"` + string(values[1]) + `"}`,
				`{"op":"push-creds","Secrets":{"A":"` + string(values[2]) + `"}}`,
				`{"op":"ping","secrets":{"A":"` + string(values[3]) + `"}}`,
			} {
				conn, err := net.Dial("unix", d.adminSocket())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				fmt.Fprintln(conn, push)
				if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			if answer := sendRequest(t, d.adminSocket(), `{"op":"clear-creds"}`); answer != `{"ok":true}` {
				t.Fatal(answer)
			}
			if !eventually(time.Second, func() bool { return sum(countCopies(t, d.cmd.Process.Pid, values)) == 0 }) {
				t.Errorf("after the clear, the memory still contains %d copies of the values", sum(countCopies(t, d.cmd.Process.Pid, values)))
			}
			if err := d.stop(unix.SIGTERM); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMemoryScanFindsCopiesInNaiveBroker runs countCopies on a broker that does not wipe its
// buffers. countCopies must find copies of the values there. Otherwise
// TestClearLeavesNoCopyInMemory would prove nothing.
func TestMemoryScanFindsCopiesInNaiveBroker(t *testing.T) {
	testenv.RequireMemoryAccess(t)
	socket := filepath.Join(filepath.Dir(newRuntimeDir(t)), "naive.sock")
	cmd := exec.Command(os.Args[0], socket)
	cmd.Env = append(os.Environ(), "KEYHATCH_TEST_AS=naive")
	ready, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if _, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	values := randomValues(100)
	pushAndFetch(t, socket, socket, values)
	loaded := sum(countCopies(t, cmd.Process.Pid, values))
	sendRequest(t, socket, `{"op":"clear-creds"}`)
	cleared := sum(countCopies(t, cmd.Process.Pid, values))
	if loaded <= 100 || cleared == 0 {
		t.Errorf("countCopies found %d copies before the clear and %d after the clear, want more than 100 and more than 0", loaded, cleared)
	}
	t.Logf("the naive broker has %d copies before the clear and %d after the clear", loaded, cleared)
}

// serveNaiveBroker answers push-creds, get, and clear-creds with bufio and encoding/json, and
// does not wipe its buffers.
func serveNaiveBroker(socket string) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	secrets := map[string]string{}
	for {
		conn, err := l.Accept()
		if err != nil {
			panic(err)
		}
		lines := bufio.NewScanner(conn)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var request struct {
				Op, Name string
				Secrets  map[string]string
			}
			if err := json.Unmarshal(lines.Bytes(), &request); err != nil {
				panic(err)
			}
			switch request.Op {
			case "push-creds":
				secrets = request.Secrets
			case "clear-creds":
				secrets = map[string]string{}
			}
			json.NewEncoder(conn).Encode(map[string]any{"ok": true, "value": secrets[request.Name]})
		}
		conn.Close()
	}
}

func randomValues(n int) [][]byte {
	values := make([][]byte, n)
	for i := range values {
		values[i] = []byte(tripwire + rand.Text())
	}
	return values
}

// registerNames registers a project that may fetch n secrets: S0, S1, ...
func registerNames(t *testing.T, d *daemon, project string, n int) {
	t.Helper()
	text := "schema_version: 1\nproject: " + project + "\nsecrets:\n"
	for i := range n {
		text += fmt.Sprintf("  S%d:\n", i)
	}
	request, _ := json.Marshal(map[string]any{"op": "register", "name": project, "project_path": "/nowhere/" + project, "manifest": text})
	if answer := sendRequest(t, d.adminSocket(), string(request)); !strings.Contains(answer, `"ok":true`) {
		t.Fatal(answer)
	}
}

// pushAndFetch pushes the values as the secrets S0, S1, ... and fetches each secret three times.
func pushAndFetch(t *testing.T, admin, project string, values [][]byte) {
	t.Helper()
	secrets := map[string]string{}
	for i, v := range values {
		secrets[fmt.Sprintf("S%d", i)] = string(v)
	}
	request, _ := json.Marshal(map[string]any{"op": "push-creds", "secrets": secrets})
	if answer := sendRequest(t, admin, string(request)); !strings.Contains(answer, `"ok":true`) {
		t.Fatal(answer)
	}
	for i := range 3 * len(values) {
		n := i % len(values)
		if answer := sendRequest(t, project, fmt.Sprintf(`{"op":"get","name":"S%d"}`, n)); !strings.Contains(answer, string(values[n])) {
			t.Fatalf("the answer for S%d does not contain the value of S%d", n, n)
		}
	}
}

// countCopies counts the copies of each value in the readable memory of a process.
func countCopies(t *testing.T, pid int, values [][]byte) []int {
	t.Helper()
	counts := make([]int, len(values))
	for region := range testenv.ReadMemory(t, pid) {
		// All values start with the tripwire, so one search finds the candidates.
		for at := 0; ; at++ {
			i := bytes.Index(region.Content[at:], []byte(tripwire))
			if i < 0 {
				break
			}
			at += i
			for v, value := range values {
				if bytes.HasPrefix(region.Content[at:], value) {
					counts[v]++
				}
			}
		}
	}
	return counts
}

func sum(counts []int) (total int) {
	for _, n := range counts {
		total += n
	}
	return total
}
