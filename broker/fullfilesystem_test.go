package broker_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TestFullFileSystemStopsNobodyElse fills the file system of the runtime directory. A
// container can do the same in its project's directory. Served projects, health checks,
// and restarts must still work, because they need no space. The registration of a new
// project must fail with a clear error.
func TestFullFileSystemStopsNobodyElse(t *testing.T) {
	m := newServiceManagerOn(t, 100, func(dir string) {
		if err := unix.Mount("keyhatch-test", dir, "tmpfs", 0, "size=256k,nr_inodes=64,mode=755"); err != nil {
			testenv.Require(t, false, "cannot mount a file system, which requires root: "+err.Error())
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	})
	s := m.start()
	m.register("evil", "A")
	fill := func() {
		for i := 0; ; i++ {
			path := filepath.Join(filepath.Dir(m.projectSocket("evil")), fmt.Sprint("filler", i))
			file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if os.IsExist(err) {
				continue
			}
			if err != nil {
				return
			}
			for err == nil {
				_, err = file.Write(make([]byte, 4096))
			}
			file.Close()
		}
	}
	fill()
	// A restart must keep the link of a dev container. If the broker removed the link and created
	// it again, the container could fill the freed space first, and the second step would fail.
	link := filepath.Join(m.dir, "run/devcontainers", string(devcontainerIDOf("evil")))
	before, err := os.Lstat(link)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.Probe(t.Context()); err != nil {
			t.Errorf("the health check fails on a full file system: %v", err)
		}
		s.Close()
		fill() // uses the space of all files that the broker has removed
		s = m.start()
		m.push(tripwire)
		if answer := connect(t, m.projectSocket("evil")).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
			t.Errorf("after a restart with a full file system, the answer to get is %s", answer)
		}
	}
	if after, err := os.Lstat(link); err != nil || !os.SameFile(before, after) {
		t.Errorf("a restart replaced or removed the link of the dev container; error %v", err)
	}
	text := manifestText("web", "A")
	admin, err := client.DialAdmin(context.Background(), m.adminSocket())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := admin.Register(context.Background(), schema.RegisterRequest{Name: "web", ProjectPath: "/nowhere/web", Manifest: &text}); err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("registering a project on a full file system returned %v, want an error about missing space", err)
	}
}
