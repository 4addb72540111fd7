package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain also runs this program as a client or a server of a benchmark.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "client" || os.Args[1] == "serve") {
		if err := run(os.Args[1:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// Without this setting, the race detector lets each process sleep for one second before it
	// exits.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	os.Exit(m.Run())
}

func testProgram(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

// TestAllServersAnswerAllLoads runs each load for a very short time. The clients check every
// reply, and compare checks the counts and the audit log of keyhatchd.
func TestAllServersAnswerAllLoads(t *testing.T) {
	dir, err := os.MkdirTemp("", "khbench") // the path of t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var out bytes.Buffer
	b := &bench{self: testProgram(t), keyhatchd: filepath.Join(dir, "keyhatchd"), dir: dir, rounds: 1, duration: 20 * time.Millisecond, out: &out, report: newReport()}
	if text, err := exec.Command("go", "build", "-o", b.keyhatchd, "../../cmd/keyhatchd").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	skipped, err := b.compileEcho()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(skipped, b.findRedis())
	cpus := processors()
	if err := b.compare(placement{"on two processors", cpus[0], cpus[len(cpus)-1]}); err != nil {
		t.Fatal(err)
	}
	for _, row := range b.report.Rows {
		if last := row.Figures[len(row.Figures)-1]; !strings.Contains(last.Server, keyhatchd) || last.PerSecond == 0 {
			t.Errorf("%s: keyhatchd is missing: %+v", row.Name, last)
		}
	}
	if want := len(getRows) + len(pushRows); len(b.report.Rows) < want {
		t.Errorf("the report contains %d rows, want at least %d:\n%s", len(b.report.Rows), want, &out)
	}
}
