package devcontainer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runMounted starts a container with docker run. The container mounts dir at /run/keyhatch,
// and it mounts the keyhatch command. If dir does not exist, docker creates dir, as Compose
// does for the short form of a volume.
func (h *host) runMounted(dir string) *container {
	h.t.Helper()
	id, err := output(h.command("docker", "run", "-d", "--network", "none", "-v", dir+":/run/keyhatch",
		"-v", filepath.Join(shared.bin, "keyhatch")+":/usr/local/bin/keyhatch:ro", shared.image, "sleep", "3600"))
	if err != nil {
		h.t.Fatal(err)
	}
	c := &container{h, strings.TrimSpace(id), ""}
	h.t.Cleanup(func() { output(h.command("docker", "rm", "-f", c.id)) })
	return c
}

// TestNamesAndDirectories registers a project under the name of an earlier project. A container
// that still mounts the directory of the earlier project must not get the secrets of the new
// project.
func TestNamesAndDirectories(t *testing.T) {
	h := newHost(t)
	h.startBroker()
	writeFile(t, filepath.Join(h.dir, "secrets.json"), `{"A": "TRIPWIRE-a", "B": "TRIPWIRE-b"}`)
	h.mustKeyhatchctl("push", filepath.Join(h.dir, "secrets.json"))
	evil := filepath.Join(h.dir, "evil", "My App")
	good := filepath.Join(h.dir, "good", "café")
	for dir, secret := range map[string]string{evil: "A", good: "B"} {
		writeFile(t, dir+"/.devcontainer/keyhatch.yaml", "schema_version: 1\nproject: api\nsecrets: {"+secret+": }\n")
	}
	h.mustKeyhatchctl("register", evil)
	mountedName := filepath.Join(h.runtimeDir, "projects", "api")
	old := h.runMounted(mountedName)
	if got := old.mustExec("keyhatch", "get", "A"); got != "TRIPWIRE-a" {
		t.Errorf("the first project gets %q", got)
	}

	// The broker must refuse the name api for the second project while the first project is
	// registered, and also after the first project was unregistered.
	if _, err := h.keyhatchctl("register", good); err == nil || !strings.Contains(err.Error(), "--name api-2") {
		t.Errorf("the name of another project is not refused: %v", err)
	}
	h.mustKeyhatchctl("unregister", "api")
	if _, err := h.keyhatchctl("register", good); err == nil {
		t.Error("a name that was used before is not refused")
	}
	// The operator removes the link, because no container should mount it any more. The old
	// container still has the old directory.
	if err := os.Remove(mountedName); err != nil {
		t.Fatal(err)
	}
	old.mustExec("sh", "-c", "busybox nc -lU /run/keyhatch/broker.sock >/dev/null 2>&1 & mkdir -p /run/keyhatch/x")
	h.mustKeyhatchctl("register", good)
	current := h.runMounted(mountedName)
	if got := current.mustExec("keyhatch", "get", "B"); got != "TRIPWIRE-b" {
		t.Errorf("the second project gets %q", got)
	}
	for _, name := range []string{"A", "B"} {
		if out, err := old.exec("timeout", "5", "keyhatch", "get", name); err == nil {
			t.Errorf("the old container gets %s: %s", name, out)
		}
	}

	// If the first project is registered again from the same path, it gets its old directory.
	// So the old container must work again.
	h.mustKeyhatchctl("register", "--name", "first", evil)
	waitFor(t, func() error { _, err := old.exec("keyhatch", "get", "A"); return err })
	if out, err := old.exec("keyhatch", "get", "B"); err == nil {
		t.Errorf("the first project gets the secret of the second one: %s", out)
	}
}

// TestContainerBeforeRegistration starts a container before its project is registered. The
// engine then creates the directory that the container mounts. keyhatch doctor must report
// this. After the registration and a restart of the container, the container must have
// access.
func TestContainerBeforeRegistration(t *testing.T) {
	h := newHost(t)
	h.startBroker()
	dir := h.writeProject("early", "  A:\n")
	mountedName := filepath.Join(h.runtimeDir, "projects", "early")
	early := h.runMounted(mountedName)
	out, err := early.exec("keyhatch", "doctor")
	if err == nil || !strings.Contains(out, "made_by_engine") || !strings.Contains(out, "projects/early") {
		t.Errorf("keyhatch doctor does not report made_by_engine: error %v\n%s", err, out)
	}
	h.mustKeyhatchctl("register", dir)
	if out, err := early.exec("keyhatch", "doctor"); err == nil {
		t.Errorf("before its restart, the container that was started too early has access: %s", out)
	}
	if _, err := output(h.command("docker", "restart", "-t", "0", early.id)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() error { _, err := early.exec("keyhatch", "list"); return err })
}
