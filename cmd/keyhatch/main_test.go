package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if rundir.IsChild() {
		rundir.RunChild()
		return
	}
	testscript.Main(m, map[string]func(){"keyhatch": func() {
		memoryDir = os.Getenv("MEMORY")
		if grace, err := time.ParseDuration(os.Getenv("GRACE")); err == nil {
			restartGracePeriod = grace
		}
		main()
	}})
}

// TestScripts runs the scripts testdata/*.txt. Each script has its own broker with the
// project api. The project's manifest is in the script. $SOCKET is the path of the project's
// socket. The functions with the prefix cmd implement the additional commands of the scripts.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "kh") // a short path, because socket addresses have a length limit
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			log := slog.New(slog.DiscardHandler)
			audit, err := audit.Open(audit.Config{Out: io.Discard, Log: log})
			if err != nil {
				return err
			}
			server, err := broker.New(broker.Config{RuntimeDir: dir + "/keyhatch", AdminGID: -1, Audit: audit, Log: log, Version: "test"})
			if err != nil {
				return err
			}
			env.Defer(func() { server.Close(); audit.Close() })
			env.Setenv("DIR", dir)
			memoryDir, err := os.MkdirTemp("/dev/shm", "kh")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(memoryDir) })
			env.Setenv("MEMORY", memoryDir+"/files") // the directory for rendered files
			env.Setenv("HOME", env.WorkDir)
			// Without this setting, a command that is built with the race detector sleeps
			// for one second before it exits.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Setenv("ADMIN", server.AdminSocket())
			socket, err := registerProject(server.AdminSocket(), filepath.Join(env.WorkDir, "api"))
			env.Setenv("SOCKET", socket)
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"approve": cmdApprove,
			"exits":   cmdExits,
			"fake":    cmdFakeBroker,
			"push":    cmdPush,
			"until":   cmdUntil,
		},
	})
}

func registerProject(admin, dir string) (socket string, err error) {
	a, err := client.DialAdmin(context.Background(), admin)
	if err != nil {
		return "", err
	}
	defer a.Close()
	answer, err := a.Register(context.Background(), schema.RegisterRequest{Name: "api", ProjectPath: dir})
	return answer.SocketPath, err
}

// cmdApprove reloads the project with the manifest in FILE. Usage: approve FILE
func cmdApprove(ts *testscript.TestScript, _ bool, args []string) {
	a, err := client.DialAdmin(context.Background(), ts.Getenv("ADMIN"))
	ts.Check(err)
	defer a.Close()
	text := ts.ReadFile(args[0])
	_, err = a.Reload(context.Background(), schema.ReloadRequest{Name: "api", Manifest: &text})
	ts.Check(err)
}

// cmdExits runs a command and checks its exit code. Usage: exits CODE CMD ARG...
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	exitCode := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		status, ok := err.(interface{ ExitCode() int })
		if !ok {
			ts.Fatalf("%v", err)
		}
		exitCode = status.ExitCode()
	}
	if neg || fmt.Sprint(exitCode) != args[0] {
		ts.Fatalf("exit code %d, want %s", exitCode, args[0])
	}
}

// cmdPush sends the push-creds request in FILE to the admin socket. Usage: push FILE
func cmdPush(ts *testscript.TestScript, _ bool, args []string) {
	var request any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &request))
	line, err := json.Marshal(request)
	ts.Check(err)
	c, err := net.Dial("unix", ts.Getenv("ADMIN"))
	ts.Check(err)
	defer c.Close()
	_, err = c.Write(append(line, '\n'))
	ts.Check(err)
	answer, err := bufio.NewReader(c).ReadString('\n')
	ts.Check(err)
	if !strings.HasPrefix(answer, `{"ok":true`) {
		ts.Fatalf("%s", answer)
	}
}

// cmdUntil repeats a command until the command succeeds. Usage: until CMD ARG...
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(15 * time.Second); ts.Exec(args[0], args[1:]...) != nil; <-tick.C {
		if neg || time.Now().After(end) {
			ts.Fatalf("the command did not succeed within 15 seconds")
		}
	}
}

// cmdFakeBroker starts a fake broker that listens on $DIR/FILE until the script ends. FILE
// contains one line "OP ANSWER" for each operation. Usage: fake FILE
func cmdFakeBroker(ts *testscript.TestScript, _ bool, args []string) {
	answers := map[string]string{}
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		op, answer, _ := strings.Cut(line, " ")
		answers[op] = answer
	}
	listener, err := net.Listen("unix", filepath.Join(ts.Getenv("DIR"), args[0]))
	ts.Check(err)
	stopped := make(chan struct{})
	ts.Defer(func() { listener.Close(); <-stopped })
	go func() { // this goroutine ends when the listener is closed
		defer close(stopped)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			var request struct {
				Op string `json:"op"`
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			json.Unmarshal([]byte(line), &request)
			io.WriteString(c, answers[request.Op])
			c.Close()
		}
	}()
}
