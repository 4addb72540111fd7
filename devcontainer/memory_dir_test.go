package devcontainer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRenderRefusesUnsafeMemoryDir renders a file into paths that are not a private directory
// in memory. Examples are a directory on a disk, a directory of another user, and a symbolic
// link. Render must return ErrNoMemoryDir, and must not create the link.
func TestRenderRefusesUnsafeMemoryDir(t *testing.T) {
	diskDir := t.TempDir()
	var statfs unix.Statfs_t
	if err := unix.Statfs(diskDir, &statfs); err != nil {
		t.Fatal(err)
	}
	if int64(statfs.Type) == unix.TMPFS_MAGIC {
		diskDir = "/proc"
	}
	memoryDir, err := os.MkdirTemp("/dev/shm", "kh")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(memoryDir)
	for name, c := range map[string]struct {
		dir         string
		create      func(dir string) error
		wantMessage string
	}{
		"on disk":       {diskDir + "/files", func(string) error { return nil }, "is not on a tmpfs"},
		"open to all":   {memoryDir + "/open", func(d string) error { return errors.Join(os.Mkdir(d, 0o700), os.Chmod(d, 0o704)) }, "has mode 0704"},
		"setgid":        {memoryDir + "/set", func(d string) error { return errors.Join(os.Mkdir(d, 0o700), os.Chmod(d, 0o700|fs.ModeSetgid)) }, "has mode 02700"},
		"a link":        {memoryDir + "/link", func(d string) error { return errors.Join(os.Mkdir(d+"-to", 0o700), os.Symlink(d+"-to", d)) }, "as a directory: not a directory"},
		"a link out":    {memoryDir + "/out", func(d string) error { return os.Symlink(diskDir, d) }, "as a directory: not a directory"},
		"a file":        {memoryDir + "/file", func(d string) error { return os.WriteFile(d, nil, 0o600) }, "as a directory: not a directory"},
		"another owner": {memoryDir + "/other", func(d string) error { return errors.Join(os.Mkdir(d, 0o700), os.Chown(d, 12345, -1)) }, "belongs to uid 12345"},
		"no parent":     {memoryDir + "/none/files", func(string) error { return nil }, "no such file"},
	} {
		if name == "another owner" && os.Geteuid() != 0 {
			continue // only root can change the owner of a directory
		}
		if err := c.create(c.dir); err != nil {
			t.Fatal(name, err)
		}
		target := t.TempDir() + "/a"
		_, err := NewRendering(c.dir, "api").Render([]File{{"A", target, 0o600, ""}}, secretValues("A=TRIPWIRE"))
		if !errors.Is(err, ErrNoMemoryDir) || !strings.Contains(fmt.Sprint(err), c.wantMessage) {
			t.Errorf("%s: error %v, want ErrNoMemoryDir with %q", name, err, c.wantMessage)
		}
		if _, err := os.Lstat(target); err == nil {
			t.Errorf("%s: Render created the link in spite of the error", name)
		}
		if _, err := os.Lstat(c.dir); name == "on disk" && err == nil {
			t.Error("Render created a directory on a disk")
		}
	}
}
