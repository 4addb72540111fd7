package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// exportShells lists the shells that can use the output of keyhatch export. eval is the command
// that the help of keyhatch export shows for the shell.
var exportShells = []struct {
	command []string
	eval    string
}{
	{[]string{"bash", "-c"}, `eval "$(keyhatch export)"`},
	{[]string{"dash", "-c"}, `eval "$(keyhatch export)"`},
	{[]string{"zsh", "-c"}, `eval "$(keyhatch export)"`},
	{[]string{"busybox", "sh", "-c"}, `eval "$(keyhatch export)"`},
	{[]string{"fish", "--no-config", "-c"}, `keyhatch export --format fish | source`},
}

// TestEvalFailsIfExportFails uses the output of a failed keyhatch export. The command eval or
// source must fail. Without set -e, the shell must continue, because the user may work in this
// shell.
func TestEvalFailsIfExportFails(t *testing.T) {
	socket := serveProject(t, "schema_version: 1\nproject: api\nsecrets: {A: , MISSING: }\n", schema.PushRequest{
		Secrets: map[schema.SecretName]schema.Value{"A": {Text: "TRIPWIRE"}},
	})
	for _, shell := range exportShells {
		t.Run(shell.command[0], func(t *testing.T) {
			testenv.RequireTool(t, shell.command[0])
			run := func(socket, script string) (stdout, stderr string) {
				c := exec.Command(shell.command[0], append(shell.command[1:], script)...)
				c.Env = append(os.Environ(), "KEYHATCH_SOCKET="+socket)
				c.Dir = t.TempDir()
				var errors bytes.Buffer
				c.Stderr = &errors
				out, _ := c.Output()
				return string(out), errors.String()
			}
			for reason, socket := range map[string]string{"the broker has no secret named MISSING": socket, "no such file": socket + "-none"} {
				stdout, stderr := run(socket, shell.eval+" || echo failed; echo \"A=$A\"")
				if stdout != "failed\nA=\n" || !strings.Contains(stderr, reason) || strings.Contains(stderr, "TRIPWIRE") {
					t.Errorf("%s: %q, %q", reason, stdout, stderr)
				}
				if shell.command[0] == "fish" {
					continue // fish has no set -e
				}
				if stdout, _ := run(socket, "set -e; "+shell.eval+"; echo continued"); stdout != "" {
					t.Errorf("%s: set -e did not end the shell: %q", reason, stdout)
				}
			}
			for _, flags := range []string{"--nonsense", "--format", "--format bash", "--format=bash --nonsense", "--nonsense --format bash", "--wait x", "extra"} {
				script := regexp.MustCompile(`export( --format fish)?`).ReplaceAllString(shell.eval, "export "+flags)
				if stdout, _ := run(socket, script+" || echo failed"); stdout != "failed\n" {
					t.Errorf("usage error of export %s: %q", flags, stdout)
				}
			}
		})
	}
}

// TestExportRoundTripsThroughShellsAndDotenv exports 1000 random values. Each shell must
// get the same values through eval. The sidecar's dotenv parser must get the same values
// for all values that are text.
func TestExportRoundTripsThroughShellsAndDotenv(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	values, texts := map[string]string{}, []string{}
	push := schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}, SecretsB64: map[schema.SecretName][]byte{}}
	manifest := "schema_version: 1\nproject: api\nsecrets:\n"
	for i := range 1000 {
		name, value := fmt.Sprintf("V%03d", i), randomValue(random, i)
		if i < len(pemValues) {
			value = pemValues[i]
		}
		values[name] = value
		manifest += "  " + name + ":\n"
		if utf8.ValidString(value) {
			push.Secrets[schema.SecretName(name)] = schema.Value{Text: value}
			texts = append(texts, name)
		} else {
			push.SecretsB64[schema.SecretName(name)] = []byte(value)
		}
	}
	if len(push.SecretsB64) < 100 || len(texts) < 500 {
		t.Fatalf("%d values are bytes, want at least 100; %d values are text, want at least 500", len(push.SecretsB64), len(texts))
	}
	socket := serveProject(t, manifest, push)
	for _, shell := range exportShells {
		t.Run(shell.command[0], func(t *testing.T) {
			testenv.RequireTool(t, shell.command[0])
			c := exec.Command(shell.command[0], append(shell.command[1:], shell.eval+"; exec env -0")...)
			c.Env = append(os.Environ(), "KEYHATCH_SOCKET="+socket)
			c.Dir = t.TempDir()
			var stderr bytes.Buffer
			c.Stderr = &stderr
			out, err := c.Output()
			if err != nil || stderr.Len() > 0 {
				t.Fatalf("%v: %s", err, stderr.String())
			}
			got := map[string]string{}
			for entry := range strings.SplitSeq(string(out), "\x00") {
				name, value, _ := strings.Cut(entry, "=")
				got[name] = value
			}
			for name, want := range values {
				if value, ok := got[name]; !ok || value != want {
					t.Errorf("%s is %q, want %q", name, value, want)
				}
			}
		})
	}
	t.Run("dotenv", func(t *testing.T) {
		c := exec.Command("keyhatch", "export", "--format", "dotenv", "--only", strings.Join(texts, ","))
		c.Env = append(os.Environ(), "KEYHATCH_SOCKET="+socket)
		c.Dir = t.TempDir()
		out, err := c.Output()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(c.Dir, ".env")
		if err := os.WriteFile(file, out, 0o600); err != nil {
			t.Fatal(err)
		}
		read, err := store.File{Path: file, Format: "dotenv"}.Read(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range texts {
			if got := string(read.Set[schema.SecretName(name)].Bytes); got != values[name] {
				t.Errorf("%s is %q, want %q", name, got, values[name])
			}
		}
	})
}

// pemValues are PEM texts, and texts that begin like PEM texts.
var pemValues = []string{
	"-----BEGIN A-----\n" + strings.Repeat("YWFhYWFh\n", 2) + "YWE=\n-----END A-----\n",
	"-----BEGIN A-----\n" + strings.Repeat("aGFsbG8", 10) + "\nYWE=\n-----END A-----",
	"-----BEGIN A-----\nB=\nYWE=\n-----END A-----\n",
	"-----BEGIN A-----\nYWE=\n-----END A-----\nB=\n",
	"-----BEGIN A-----\nexport B =\n-----END A-----\n",
}

// randomValue returns a value without NUL bytes. Every fourth value consists of random
// bytes. The other values consist of characters that shells and parsers often handle wrongly.
func randomValue(random *rand.Rand, index int) string {
	pieces := []string{"'", `"`, "$", "`", "\\", "\n", "\r", "\t", " ", "#", "=", "!", "*", "~", "{", "}", ";", "&", "|", "<", ">",
		"(", ")", "[", "]", "%", "é", "\u2028", "$(id)", "${HOME}", `\n`, `\1`, "''", "a", "Z", "0", "\x01", "\x7f",
		"\nA=b", "\nexport A= \n", "-----BEGIN A-----\nYQ=\n", "-----END A-----\n"}
	var b strings.Builder
	for range random.IntN(24) {
		if index%4 == 0 {
			b.WriteByte(byte(1 + random.IntN(255)))
		} else {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
	}
	return b.String()
}

// serveProject starts a broker with the project api and one snapshot, and returns the path
// of the project's socket. The broker runs until the test ends.
func serveProject(t *testing.T, manifest string, push schema.PushRequest) (socket string) {
	t.Helper()
	return startBroker(t, manifest, push).socket
}

// A testBroker is a broker with the project api.
type testBroker struct {
	admin  *client.Admin
	socket string // the path of the project's socket
}

// startBroker starts a broker with the project api and one snapshot. The broker runs until
// the test ends.
func startBroker(t *testing.T, manifest string, push schema.PushRequest) *testBroker {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh") // a short path, because socket addresses have a length limit
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	audit, err := audit.Open(audit.Config{Out: io.Discard, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	server, err := broker.New(broker.Config{RuntimeDir: dir + "/keyhatch", AdminGID: -1, Audit: audit, Log: log, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); audit.Close(); os.RemoveAll(dir) })
	admin, err := client.DialAdmin(context.Background(), server.AdminSocket())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	answer, err := admin.Register(context.Background(), schema.RegisterRequest{Name: "api", ProjectPath: "/nowhere/api", Manifest: &manifest})
	if err != nil {
		t.Fatal(err)
	}
	b := &testBroker{admin, answer.SocketPath}
	b.push(t, push)
	return b
}

func (b *testBroker) push(t *testing.T, request schema.PushRequest) {
	t.Helper()
	request.Op = schema.OpPush
	line, err := wire.Encode(request)
	if err == nil {
		_, err = b.admin.Push(context.Background(), line)
	}
	if err != nil {
		t.Fatal(err)
	}
}
