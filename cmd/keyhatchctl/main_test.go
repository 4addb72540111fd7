package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if rundir.IsChild() {
		rundir.RunChild()
		return
	}
	if isTreeChild() {
		runTreeChild(runTreeTask)
		return
	}
	testscript.Main(m, map[string]func(){"keyhatchctl": main})
}

// TestScripts runs testdata/*.txt. Each script has its own broker, with the admin
// socket $ADMIN and the directory of declared projects $DECLARED.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "kh") // the path is short, because a socket path has at most 107 bytes
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			log := slog.New(slog.DiscardHandler)
			audit, err := audit.Open(audit.Config{Out: io.Discard, Log: log})
			if err != nil {
				return err
			}
			server, err := broker.New(broker.Config{RuntimeDir: dir + "/keyhatch", ProjectsDir: dir + "/projects.d", AdminGID: -1, Audit: audit, Log: log, Version: cli.Version})
			if err != nil {
				return err
			}
			env.Defer(func() { server.Close(); audit.Close() })
			// Otherwise, each command with the race detector would sleep 1 s before it exits.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Setenv("ADMIN", server.AdminSocket())
			env.Setenv("RUNTIME", dir+"/keyhatch")
			env.Setenv("DECLARED", dir+"/projects.d")
			env.Setenv("XDG_RUNTIME_DIR", dir)
			return nil
		},
		Condition: func(condition string) (bool, error) {
			if condition != "root" {
				return false, fmt.Errorf("unknown condition %s", condition)
			}
			return os.Geteuid() == 0, nil
		},
	})
}

// fakeBroker starts a server that calls answer for each request line and sends the result.
// fakeBroker returns the path of the server's socket. The server stops at the end of the test.
func fakeBroker(t *testing.T, answer func(op, line string) string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-ended })
	go func() { // the goroutine ends when the listener is closed
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			lines := bufio.NewScanner(c)
			lines.Buffer(nil, schema.MaxPush)
			for lines.Scan() {
				var request struct {
					Op string `json:"op"`
				}
				if err := wire.Decode(lines.Bytes(), &request, schema.MaxDepth); err != nil {
					t.Errorf("invalid request: %v", err)
				}
				fmt.Fprintln(c, answer(request.Op, lines.Text()))
			}
			c.Close()
		}
	}()
	return path
}

const pingResponse = `{"ok":true,"broker_version":"9","protocol_version":2,"instance_id":"x"}`

// runCommand runs keyhatchctl in this process, and returns its standard output and its error.
func runCommand(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out strings.Builder
	c := newRootCommand()
	c.SetOut(&out)
	c.SetErr(io.Discard)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args)
	err = c.ExecuteContext(t.Context())
	return out.String(), err
}

func hintOf(err error) string {
	if failure, ok := errors.AsType[*cli.Error](err); ok {
		return failure.Hint
	}
	return ""
}

// TestErrorsHaveHints runs keyhatchctl list with a broker that answers ping or list with an
// error, or with an unexpected answer. The error of keyhatchctl must have the expected hint, or
// no hint.
func TestErrorsHaveHints(t *testing.T) {
	for _, c := range []struct {
		ping, list string
		err, hint  string
	}{
		{`{"ok":true,"broker_version":"9.1","protocol_version":3,"instance_id":"x"}`, "", "the broker uses protocol 3, but this keyhatchctl uses protocol 2", "version 9.1"},
		{`{"ok":false,"code":"rate_limited","message":"too many connections"}`, "", "too many connections", "retry"},
		{`{"ok":false,"code":"unauthorized","message":"no token"}`, "", "no token", "--admin-token-file COPY"},
		{`{"ok":false,"code":"unauthorized","message":"no token","token_file":"/dev/null"}`, "", "no token", "--admin-token-file COPY"},
		{`no JSON`, "", "invalid answer from the broker", ""},
		{pingResponse, `{"ok":false,"code":"protocol_error","message":"op must be one of the operations of the project socket: get"}`, "op must be", "is a project's socket"},
		{pingResponse, `{"ok":false,"code":"protocol_error","message":"op must be one of the operations of the admin socket: ping"}`, "op must be", "needs a newer broker"},
		{pingResponse, `{"ok":false,"code":"protocol_error","message":"allow_uids must not contain 65534"}`, "65534", ""},
		{pingResponse, `{"ok":false,"code":"project_exists","message":"there"}`, "there", " projects"},
		{pingResponse, `{"ok":false,"code":"project_unknown","message":"gone"}`, "gone", " projects"},
		{pingResponse, `{"ok":false,"code":"manifest_invalid","message":"line 1"}`, "line 1", "correct the manifest"},
		{pingResponse, `{"ok":false,"code":"invalid_payload","message":"bad"}`, "bad", "its secrets have not changed"},
		{pingResponse, `{"ok":false,"code":"payload_too_large","message":"big"}`, "big", "its secrets have not changed"},
		{pingResponse, `{"ok":false,"code":"internal_error","message":"odd"}`, "odd", ""},
	} {
		socket := fakeBroker(t, func(op, _ string) string {
			if op == "ping" {
				return c.ping
			}
			return c.list
		})
		_, err := runCommand(t, "--socket", socket, "list")
		hint := hintOf(err)
		if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(hint, c.hint) || (c.hint == "") != (hint == "") {
			t.Errorf("%s%s:\n got %v, hint %q\nwant %s, hint %q", c.ping, c.list, err, hint, c.err, c.hint)
		}
	}
}

// TestPermissionErrorHintRepeatsCommand creates a permission error for the admin socket. The hint
// must repeat the command with sudo, as the user who owns the socket.
func TestPermissionErrorHintRepeatsCommand(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(want string) {
		t.Helper()
		o := &globalOptions{}
		err := o.addHint(fmt.Errorf("%w: %w", client.ErrUnreachable, os.ErrPermission), socket)
		if !strings.Contains(hintOf(err), want+" "+cli.ShellQuote(os.Args[0])) {
			t.Errorf("hint %q, want %q", hintOf(err), want)
		}
	}
	if os.Geteuid() == 0 {
		check("sudo")
		if err := os.Chown(socket, 4321, 4321); err != nil {
			t.Fatal(err)
		}
		check("sudo -u '#4321'")
	}
}

// TestHintWithoutBrokerStartsBroker runs status with --socket and the path of a missing socket.
// The hint must start a broker with this socket. If the path cannot be the path of an admin
// socket, the hint must explain this.
func TestHintWithoutBrokerStartsBroker(t *testing.T) {
	for socket, want := range map[string]string{
		"/tmp/my run/admin/admin.sock": "correct --socket, or start the broker (add the other flags that it had, for example --projects-dir): keyhatchd --runtime-dir '/tmp/my run'",
		"/tmp/x/broker.sock":           "if ssh forwards this socket, start ssh again; otherwise correct --socket: the path of an admin socket ends with /admin/admin.sock",
	} {
		_, err := runCommand(t, "--socket", socket, "status")
		if hintOf(err) != want {
			t.Errorf("hint %q, want %q", hintOf(err), want)
		}
	}
}
