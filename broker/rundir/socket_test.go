package rundir

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestChmodSocketChangesOnlySockets checks that chmodSocket fails if a regular file or a
// symlink has replaced the socket file. chmodSocket must not change the mode of the regular
// file or of the symlink's target.
func TestChmodSocketChangesOnlySockets(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := listenUnix(filepath.Join(dir, "other"), 0o600, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, target := range map[string]string{"link": victim, "link to a socket": filepath.Join(dir, "other"), "dangling": "nowhere"} {
		path := filepath.Join(dir, name)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		if err := chmodSocket(path, 0o666); err == nil {
			t.Errorf("chmodSocket accepts a link: %s", name)
		}
	}
	if err := chmodSocket(victim, 0o666); err == nil {
		t.Error("chmodSocket accepts a regular file")
	}
	for _, path := range []string{victim, filepath.Join(dir, "other")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the mode of %s is %v, error %v, want 0600", path, info.Mode(), err)
		}
	}
	if err := chmodSocket(filepath.Join(dir, "other"), 0o640); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "other")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the mode of the socket is %v, error %v, want 0640", info.Mode(), err)
	}
}

// TestSocketRefusesDescriptorsBeforeItListens checks that listenUnix sets SO_PASSRIGHTS to 0.
// Connections inherit this option, and a client can connect as soon as the socket listens.
func TestSocketRefusesDescriptorsBeforeItListens(t *testing.T) {
	l, err := listenUnix(filepath.Join(t.TempDir(), "s"), 0o600, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		value, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSRIGHTS)
		if err == unix.ENOPROTOOPT {
			t.Skip("this kernel is older than Linux 6.16")
		}
		if err != nil || value != 0 {
			t.Errorf("SO_PASSRIGHTS is %d, error %v, want 0", value, err)
		}
	})
}

// TestCheckOfSocketFileAllocatesNothing checks a socket file. The broker checks the socket files of
// all projects every second, so the check must not allocate memory.
func TestCheckOfSocketFileAllocatesNothing(t *testing.T) {
	d := openTestDir(t)
	socket, err := d.BindProject("/a")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Listener.Close()
	for range 300 { // strconv formats small numbers without an allocation, so use a larger file descriptor
		fd, err := unix.Dup(0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	other, err := d.BindProject("/b")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Listener.Close()
	if n := testing.AllocsPerRun(100, func() {
		if !d.IsIntact(socket) || !d.IsIntact(other) {
			t.Error("the socket file is not intact")
		}
	}); n != 0 {
		t.Errorf("the check allocates memory %v times", n)
	}
}
