package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// blockDirectory makes every operation in the directory of project evil hang. A container can
// cause similar hangs by listing a large directory slowly, because the kernel locks the
// directory during the listing.
func blockDirectory(s *setup) (int, string, error) {
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		return 0, "skipped: needs root and /dev/fuse", nil
	}
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	dir, err := filepath.EvalSymlinks(filepath.Dir(b.socket("evil")))
	if err != nil {
		return 0, "", err
	}
	m, err := mountFUSE(dir, unix.S_IFDIR|0o755)
	if err != nil {
		return 0, "skipped: cannot mount FUSE", nil
	}
	defer m.unmount()
	slowest, statuses := time.Duration(0), 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); statuses++ {
		began := time.Now()
		if _, err := b.connections(); err != nil { // sends a status request
			return statuses, "", err
		}
		slowest = max(slowest, time.Since(began))
	}
	err = b.get("web")
	if slowest > 500*time.Millisecond && !s.small {
		err = exceeds("a status request took %v", slowest)
	}
	took := b.stop()
	if err == nil && took > 1500*time.Millisecond && !s.small {
		err = exceeds("the broker took %v to stop", took)
	}
	return statuses, fmt.Sprintf("a status request took at most %v, the broker took %v to stop", slowest.Round(time.Millisecond), took.Round(time.Millisecond)), err
}

// deleteSocket removes the socket file of project evil, and later replaces the file with a
// link. It measures how long the broker takes to create the socket again.
func deleteSocket(s *setup) (int, string, error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	slowest := time.Duration(0)
	for attempt, sabotage := range []func(string) error{
		os.Remove,
		func(path string) error { os.Remove(path); return os.Symlink("/etc/shadow", path) },
	} {
		if attempt > 0 {
			time.Sleep(2 * time.Second) // the broker delays a repair that soon follows another repair
		}
		if err := sabotage(b.socket("evil")); err != nil {
			return attempt, "", err
		}
		began := time.Now()
		if err := waitFor(5*time.Second, func() error { return b.get("evil") }); err != nil {
			return attempt, "", err
		}
		slowest = max(slowest, time.Since(began))
		if err := b.get("web"); err != nil {
			return attempt, "", err
		}
	}
	if slowest > 2*time.Second && !s.small {
		return 2, "", exceeds("the broker created the socket again only after %v", slowest)
	}
	return 2, fmt.Sprintf("the socket was back after %v", slowest.Round(10*time.Millisecond)), nil
}

// lockDirectory locks the runtime directory with flock(2). Every user who can open the
// directory can do this, so the lock must not prevent a start of the broker.
func lockDirectory(s *setup) (int, string, error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	b.stop()
	dir, err := os.Open(b.runtimeDir())
	if err != nil {
		return 0, "", err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return 0, "", err
	}
	if err := b.start(); err != nil {
		return 1, "", err
	}
	info, err := os.Stat(filepath.Join(b.runtimeDir(), "lock"))
	if err == nil && info.Mode().Perm() != 0o600 {
		err = fmt.Errorf("the mode of the lock file is %v, want -rw-------", info.Mode())
	}
	return 1, "the broker starts", err
}

// fillFileSystem fills the file system of the runtime directory, and restarts the broker
// several times. After each restart, the broker must serve project web.
func fillFileSystem(s *setup) (int, string, error) {
	if os.Geteuid() != 0 {
		return 0, "skipped: needs root", nil
	}
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	b.stop()
	if err := os.RemoveAll(b.runtimeDir()); err != nil {
		return 0, "", err
	}
	if err := os.Mkdir(b.runtimeDir(), 0o755); err != nil {
		return 0, "", err
	}
	if err := unix.Mount("keyhatch-attack", b.runtimeDir(), "tmpfs", 0, "size=256k,nr_inodes=64,mode=755"); err != nil {
		return 0, "skipped: cannot mount a tmpfs", nil
	}
	defer unix.Unmount(b.runtimeDir(), unix.MNT_DETACH)
	if err := b.start(); err != nil {
		return 0, "", err
	}
	evil := filepath.Dir(b.socket("evil"))
	if err := os.Chown(evil, attackerUID, attackerUID); err != nil { // root in a container can also change the owner
		return 0, "", err
	}
	os.Chmod(filepath.Dir(evil), 0o711)
	stop, err := b.startAttacker(attackerUID, "fill", evil, "0")
	if err != nil {
		return 0, "", err
	}
	defer stop()
	time.Sleep(500 * time.Millisecond) // the attacker fills the file system in this time
	// The broker must still serve both projects.
	for _, project := range []string{"web", "evil"} {
		if err := b.get(project); err != nil {
			return 0, "", fmt.Errorf("%s: %w", project, err)
		}
	}
	for range 3 {
		b.stop()
		os.Chown(evil, 0, 0) // the broker registers a project only if the directory belongs to the broker's user
		if err := b.start(); err != nil {
			return 0, "", fmt.Errorf("restarting the broker: %w", err)
		}
		if err := b.get("web"); err != nil {
			return 0, "", err
		}
		os.Chown(evil, attackerUID, attackerUID)
	}
	_, created := stop()
	return created, "project web is served, also after 3 restarts", nil
}

// reuseName registers a second project under the name of project evil. The attacker can still
// write to the directory of the first project, but must not get access to the second project.
func reuseName(s *setup) (int, string, error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	mounted, err := filepath.EvalSymlinks(filepath.Dir(b.socket("evil")))
	if err != nil {
		return 0, "", err
	}
	admin, err := client.DialAdmin(context.Background(), b.runtimeDir()+"/admin/admin.sock")
	if err != nil {
		return 0, "", err
	}
	defer admin.Close()
	if err := admin.Unregister(context.Background(), "evil"); err != nil {
		return 0, "", err
	}
	manifest := "schema_version: 1\nproject: evil\nsecrets: {A: }\n"
	good := schema.RegisterRequest{Name: "evil", ProjectPath: "/good/evil", Manifest: &manifest, AllowUIDs: []uint32{attackerUID}}
	if _, err := admin.Register(context.Background(), good); client.CodeOf(err) != schema.CodeProjectExists {
		return 0, "", fmt.Errorf("registering a project with a name that was used for another project: error %v, want %s", err, schema.CodeProjectExists)
	}
	// By removing the link, the operator allows the broker to use the name again.
	if err := os.Remove(filepath.Dir(b.socket("evil"))); err != nil {
		return 0, "", err
	}
	// The attacker listens at the path of the first project's socket.
	l, err := net.Listen("unix", filepath.Join(mounted, "broker.sock"))
	if err != nil {
		return 0, "", err
	}
	defer l.Close()
	if _, err := admin.Register(context.Background(), good); err != nil {
		return 1, "", err
	}
	if err := b.get("evil"); err != nil {
		return 1, "", fmt.Errorf("fetching the secret of the second project: %w", err)
	}
	l.Close()
	if _, err := client.NewProject(filepath.Join(mounted, "broker.sock")).Ping(context.Background(), 0); err == nil {
		return 1, "", errors.New("clients can reach the second project through the old directory")
	}
	return 1, "the second project is served, but not in the old directory", nil
}
