package cmd_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the output of the commands into testdata/messages")

// TestMessages runs commands with typical wrong input and compares the complete output with
// testdata/messages/*.txt. If you change a message, update these files with -update, and read the
// new output.
//
// For a line "$ COMMAND", a shell runs COMMAND. The next lines contain the standard output, the
// standard error, and the exit code of COMMAND. For a line "% COMMAND", a shell runs COMMAND as a
// preparation, which must succeed. The line "% broker FLAG..." starts a broker in the directory
// $RUN. The test also passes FLAG to keyhatchctl, so keyhatchctl must have the same flag. Lines
// that start with # are comments. Each file has its own directories $WORK and $RUN.
func TestMessages(t *testing.T) {
	files, err := filepath.Glob("testdata/messages/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no files in testdata/messages:", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := newMessageRun(t).run(string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(text), got); diff != "" {
				t.Errorf("the output differs; if the new output is correct, run go test ./cmd -run Messages -update (-want +got):\n%s", diff)
			}
		})
	}
}

// A messageRun runs the commands in one file of testdata/messages.
type messageRun struct {
	t                *testing.T
	work, runtimeDir string
	env              []string
}

func newMessageRun(t *testing.T) *messageRun {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh") // the path is short, because a socket path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &messageRun{t: t, work: filepath.Join(dir, "work"), runtimeDir: filepath.Join(dir, "run")}
	if err := os.Mkdir(m.work, 0o700); err != nil {
		t.Fatal(err)
	}
	m.env = []string{
		"PATH=" + binDir + string(filepath.ListSeparator) + os.Getenv("PATH"), "HOME=" + m.work, "WORK=" + m.work, "RUN=" + m.runtimeDir,
		"ADMIN=" + m.runtimeDir + "/admin/admin.sock", "KEYHATCH_SOCKET=" + m.runtimeDir + "/projects/api/broker.sock", "LC_ALL=C",
	}
	return m
}

// run runs the commands in text. It returns text with the actual output of each command.
func (m *messageRun) run(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		command, isCommand := strings.CutPrefix(line, "$ ")
		preparation, isPreparation := strings.CutPrefix(line, "% ")
		switch {
		case isCommand:
			output, code := m.shell(command)
			fmt.Fprintf(&out, "%s\n%s[exit %d]\n\n", line, m.mask(output), code)
		case isPreparation:
			out.WriteString(line + "\n")
			m.prepare(preparation)
		case strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
		}
	}
	return out.String()
}

func (m *messageRun) prepare(command string) {
	if flags, isBroker := strings.CutPrefix(command, "broker"); isBroker {
		m.startBroker(flags)
		return
	}
	if output, code := m.shell(command); code != 0 {
		m.t.Fatalf("%s: exit %d:\n%s", command, code, output)
	}
}

func (m *messageRun) startBroker(flags string) *os.Process {
	broker := exec.Command("sh", "-c", "exec keyhatchd --runtime-dir $RUN --projects-dir '' --audit file:$WORK/audit.log"+flags)
	broker.Dir, broker.Env = m.work, m.env
	if err := broker.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		broker.Process.Signal(os.Interrupt)
		broker.Wait()
	})
	for {
		if _, code := m.shell("keyhatchctl --socket $ADMIN" + flags + " status"); code == 0 {
			return broker.Process
		}
		if m.t.Context().Err() != nil {
			m.t.Fatal("the broker did not start")
		}
	}
}

func (m *messageRun) shell(command string) (output string, code int) {
	ctx, cancel := context.WithTimeout(m.t.Context(), 20*time.Second)
	defer cancel()
	shell := exec.CommandContext(ctx, "sh", "-c", command)
	shell.WaitDelay = time.Second
	shell.Dir, shell.Env = m.work, m.env
	var combined bytes.Buffer
	shell.Stdout, shell.Stderr = &combined, &combined
	err := shell.Run()
	if ctx.Err() != nil {
		m.t.Fatalf("%s: timeout after 20 seconds:\n%s", command, combined.String())
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return combined.String(), exit.ExitCode()
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return combined.String(), 0
}

// pathLength matches the length of a path in a message. mask replaces this length, because it
// depends on the name of a temporary directory.
var pathLength = regexp.MustCompile(` has \d+ bytes`)

// mask replaces the parts of the output that are different in each run.
func (m *messageRun) mask(output string) string {
	output = strings.ReplaceAll(output, m.work, "$WORK")
	output = strings.ReplaceAll(output, m.runtimeDir, "$RUN")
	return pathLength.ReplaceAllString(output, " has N bytes")
}
