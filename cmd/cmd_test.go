// Package cmd_test tests the four commands together. The tests build the commands, run them from
// PATH, and connect them with real sockets.
package cmd_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// binDir is the directory of the four commands, which are built once for all tests.
var binDir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if binDir, err = os.MkdirTemp("", "khbin"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(binDir)
		build := exec.Command("go", "build", "-o", binDir, "./keyhatchd", "./keyhatchctl", "./keyhatch-sidecar", "./keyhatch")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// TestSourcesAreRecorded calls os.Stat for every source file of the module. go test does not know
// these files, because TestMain compiles the commands in another process. But go test records the
// files that a test uses, and then uses no cached result after one of them has changed. It does
// not record files that TestMain itself uses.
func TestSourcesAreRecorded(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestScripts runs the scripts testdata/*.txt. $RUN is the path of the broker's runtime
// directory. This path is short, because the path of a socket is limited to 107 bytes. Scripts
// write the logs of the commands to $WORK/out. The script command tripwires fails if a log
// contains TRIPWIRE, which is a part of the test secrets.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			run, err := os.MkdirTemp("", "kh")
			if err != nil {
				return err
			}
			env.Setenv("RUN", run+"/run")
			env.Setenv("ADMIN", run+"/run/admin/admin.sock")
			env.Setenv("PATH", binDir+string(filepath.ListSeparator)+os.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			env.Defer(func() { os.RemoveAll(run) })
			out := filepath.Join(env.WorkDir, "out")
			return os.Mkdir(out, 0o700)
		},
		Condition: func(condition string) (bool, error) {
			switch condition {
			case "root":
				return os.Geteuid() == 0, nil
			case "all": // true if KEYHATCH_TEST_ALL=1 is set, so that a script fails if a tool is missing
				return testenv.All(), nil
			}
			return false, fmt.Errorf("unknown condition %s", condition)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"until":     cmdUntil,
			"tripwires": cmdTripwires,
			"exits":     cmdExits,
		},
	})
}

// cmdUntil repeats a command until the command succeeds, and fails after 15 seconds. Usage: until
// CMD ARG...
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: until CMD ARG...")
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(15 * time.Second); ts.Exec(args[0], args[1:]...) != nil; <-tick.C {
		if time.Now().After(deadline) {
			ts.Fatalf("%v did not succeed within 15 seconds", args)
		}
	}
}

// cmdExits runs a command, and fails if its exit code is not CODE. Usage: exits CODE CMD ARG...
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		status, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = status.ExitCode()
	}
	if neg || got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// cmdTripwires searches for TRIPWIRE in the files in the directory out, and in the command line
// and the environment of each running keyhatch command. It fails if it finds TRIPWIRE. With "!",
// it fails if it does not find TRIPWIRE. It also fails if all files are empty, because the search
// would then prove nothing.
func cmdTripwires(ts *testscript.TestScript, neg bool, args []string) {
	searched, found := 0, ""
	search := func(path string) {
		text, err := os.ReadFile(path)
		if err != nil || len(text) == 0 {
			return
		}
		searched++
		if bytes.Contains(text, []byte("TRIPWIRE")) {
			found = path
		}
	}
	ts.Check(filepath.WalkDir(ts.MkAbs("out"), func(path string, _ fs.DirEntry, err error) error {
		search(path)
		return err
	}))
	if searched == 0 {
		ts.Fatalf("all files in out are empty, so the search proves nothing")
	}
	processes, err := filepath.Glob("/proc/[0-9]*/exe")
	ts.Check(err)
	for _, exe := range processes {
		if target, err := os.Readlink(exe); err == nil && strings.HasPrefix(target, binDir) {
			search(filepath.Join(filepath.Dir(exe), "cmdline"))
			search(filepath.Join(filepath.Dir(exe), "environ"))
		}
	}
	if (found != "") != neg {
		ts.Fatalf("the file that contains TRIPWIRE is %q", found)
	}
}
