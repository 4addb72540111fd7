package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAccessOfOtherUsersIsReported checks the warning for a store that other users can read or
// change, and that the hint ends the problem. The hint must not remove the access of the group,
// because the sidecar may run as another user of this group.
func TestAccessOfOtherUsersIsReported(t *testing.T) {
	for _, c := range []struct {
		dirMode, fileMode os.FileMode
		isFile            bool // the store is the file in the directory, and not the directory
		want              string
		access            otherAccess
	}{
		{0o700, 0o666, false, "", noProblem},
		{0o750, 0o640, false, "", noProblem},
		{0o755, 0o600, false, "other users can read the store", canRead},
		{0o755, 0o644, false, "other users can read the store", canRead},
		{0o775, 0o600, false, "users other than the owner can change the store", groupCanChange},
		{0o777, 0o600, false, "every user can change the store", everyoneCanChange},
		{0o755, 0o666, false, "every user can change the store", everyoneCanChange},
		{0o755, 0o600, true, "", noProblem},
		{0o755, 0o640, true, "", noProblem},
		{0o755, 0o644, true, "other users can read the store", canRead},
		{0o755, 0o660, true, "users other than the owner can change the store", groupCanChange},
		{0o755, 0o666, true, "every user can change the store", everyoneCanChange},
	} {
		dir := filepath.Join(t.TempDir(), "my store")
		path := filepath.Join(dir, "bundle", "a.env")
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil {
			err = os.WriteFile(path, nil, 0o600)
		}
		for path, mode := range map[string]os.FileMode{path: c.fileMode, filepath.Dir(path): c.dirMode, dir: c.dirMode} {
			if err == nil {
				err = os.Chmod(path, mode) // the umask has no effect on chmod
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		store := dir
		if c.isFile {
			store = path
		}
		access, warning, hint := accessWarning(store)
		if (warning == "") != (c.want == "") || !strings.Contains(warning, c.want) || access != c.access {
			t.Errorf("%+v: got the warning %q and the access %v", c, warning, access)
		}
		if warning == "" {
			continue
		}
		command, ok := strings.CutPrefix(hint, "run ")
		if output, err := exec.Command("sh", "-c", command).CombinedOutput(); !ok || err != nil {
			t.Errorf("%+v: the hint %q failed: %v\n%s", c, hint, err, output)
		}
		if _, warning, _ := accessWarning(store); warning != "" {
			t.Errorf("%+v: after the hint, got the warning %q", c, warning)
		}
		if info, err := os.Stat(store); err != nil || info.Mode().Perm()&0o700 == 0 {
			t.Errorf("%+v: after the hint, the mode is %v, error %v", c, info.Mode(), err)
		}
	}
}
