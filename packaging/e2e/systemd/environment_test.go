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
)

// A world is what all machines of a run are made from.
type world struct {
	engine *engine.Engine
	image  string
	root   string // a tree with all that is installed
}

var stopWorld func()

// theWorld is made for the first test that boots a machine.
var theWorld = sync.OnceValues(func() (*world, error) {
	e, err := engine.Start()
	if err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp("", "khi")
	if err != nil {
		e.Stop()
		return nil, err
	}
	stopWorld = func() { e.Stop(); os.RemoveAll(root) }
	w := &world{engine: e, root: root}
	if w.image, err = e.BaseImage(context.Background(), "systemd", "systemd-sysv", "dbus", "procps", "apparmor"); err != nil {
		return nil, err
	}
	return w, w.build()
})

// build fills the tree: what make install puts there, and this test.
func (w *world) build() error {
	for _, args := range [][]string{
		{"make", "-C", "../../..", "install", "DESTDIR=" + w.root},
		{"go", "test", "-c", "-o", w.root + "/usr/local/bin/e2e", "."},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
		}
	}
	// MkdirTemp's 0700 must not become the mode of the machine's own root.
	return filepath.WalkDir(w.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o755)
	})
}

func openWorld(t *testing.T) *world {
	t.Helper()
	if os.Getenv("KEYHATCH_E2E") == "" {
		t.Skip("it boots a machine: make e2e-systemd runs it")
	}
	w, err := theWorld()
	if errors.Is(err, engine.ErrMissing) {
		need(t, false, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// need skips a test that this machine cannot run, with the reason; in CI that
// is a failure.
func need(t *testing.T, have bool, reason string) {
	t.Helper()
	if have {
		return
	}
	if os.Getenv("KEYHATCH_TEST_ALL") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
