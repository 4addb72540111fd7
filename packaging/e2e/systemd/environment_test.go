package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/e2e/engine"
	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// An environment contains the engine, the image, and the installed files. All machines of a
// test run share one environment.
type environment struct {
	engine *engine.Engine
	image  string
	root   string // a directory that contains all installed files, to be copied to /
}

var stopEnvironment func()

// sharedEnvironment returns the environment. The first call creates the environment.
var sharedEnvironment = sync.OnceValues(func() (*environment, error) {
	e, err := engine.Start()
	if err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp("", "khi")
	if err != nil {
		e.Stop()
		return nil, err
	}
	stopEnvironment = func() { e.Stop(); os.RemoveAll(root) }
	w := &environment{engine: e, root: root}
	if w.image, err = e.BaseImage(context.Background(), "systemd", "systemd-sysv", "dbus", "procps", "apparmor"); err != nil {
		return nil, err
	}
	return w, w.build()
})

// build installs three programs into w.root: keyhatch, the program attack, and this test binary,
// which becomes the program e2e.
func (w *environment) build() error {
	for _, args := range [][]string{
		{"make", "-C", "../../..", "install", "DESTDIR=" + w.root},
		{"go", "build", "-o", w.root + "/usr/local/bin/attack", "../../attack"},
		{"go", "test", "-c", "-o", w.root + "/usr/local/bin/e2e", "."},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
		}
	}
	// Change the mode of each directory to 0755. MkdirTemp created w.root with mode 0700, and
	// docker cp would copy this mode to the directory / of the machine.
	return filepath.WalkDir(w.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o755)
	})
}

func openEnvironment(t *testing.T) *environment {
	t.Helper()
	if os.Getenv("KEYHATCH_E2E") == "" {
		t.Skip("this test boots a machine: to run it, use make e2e-systemd")
	}
	w, err := sharedEnvironment()
	if errors.Is(err, engine.ErrMissing) {
		testenv.Require(t, false, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}
