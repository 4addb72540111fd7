package devcontainer

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The secrets. A quote and a backslash make JSON write them otherwise, and each
// is long enough to be found as base64 in the midst of something.
const (
	npmToken = `TRIPWIRE-npm-"quoted"\and-back`
	ghToken  = `TRIPWIRE-gh-"quoted"\and-back`
	field    = `TRIPWIRE-field-$1-"quoted"\1-back`
	cert     = `TRIPWIRE-cert-"quoted"\and-back`
	rotated  = `TRIPWIRE-rotated-"quoted"\and-back`
)

// project makes the directory of a project whose manifest has this under
// secrets.
func (h *host) project(name, secrets string) string {
	dir := filepath.Join(h.dir, "src", name)
	write(h.t, dir+"/.devcontainer/keyhatch.yaml", "schema_version: 1\nproject: "+name+"\nsecrets:\n"+secrets)
	return dir
}

// withFeature gives the project a devcontainer.json that has the Feature, from
// the tarball as it is shipped.
func (h *host) withFeature(dir, options, more string) {
	h.t.Helper()
	to := filepath.Join(dir, ".devcontainer", "keyhatch")
	if err := os.MkdirAll(to, 0o755); err != nil {
		h.t.Fatal(err)
	}
	if _, err := output(exec.Command("tar", "-xzf", shared.feature, "-C", to)); err != nil {
		h.t.Fatal(err)
	}
	write(h.t, dir+"/.devcontainer/devcontainer.json",
		`{"features": {"./keyhatch": `+options+`}, "runArgs": ["--network=none"], `+more+`}`)
}

// sidecar starts the sidecar's dev container from the template.
func (h *host) sidecar() *container {
	h.t.Helper()
	dir := filepath.Join(h.dir, "sidecar")
	volume := filepath.Base(h.dir) + "-store"
	options := strings.NewReplacer("${templateOption:image}", shared.image, "${templateOption:network}", "none",
		"${templateOption:sidecar}", shared.bin+"/keyhatch-sidecar", "${templateOption:volume}", volume)
	const template = "../../../devcontainer/template/keyhatch-sidecar/.devcontainer/"
	for _, file := range []string{"devcontainer.json", "Dockerfile"} {
		text, err := os.ReadFile(template + file)
		if err != nil {
			h.t.Fatal(err)
		}
		applied := options.Replace(string(text))
		if strings.Contains(applied, "${templateOption") {
			h.t.Errorf("the template's %s has an option that is not set", file)
		}
		write(h.t, filepath.Join(dir, ".devcontainer", file), applied)
	}
	h.t.Cleanup(func() { output(exec.Command("docker", "volume", "rm", volume)) })
	return h.up("", h.command("devcontainer", "up", "--buildkit", "never", "--workspace-folder", dir))
}

// set puts a secret into the sidecar's store, from standard input.
func (c *container) set(name, value string) {
	c.h.t.Helper()
	cmd := c.h.command("docker", "exec", "-i", c.id, "keyhatch-sidecar", "set", name, "--store", "dir:/secrets")
	cmd.Stdin = strings.NewReader(value)
	if _, err := output(cmd); err != nil {
		c.h.t.Fatal(err)
	}
}

// TestProjects: a broker, the sidecar of our template, and projects that use
// the Feature or nothing at all. Each gets its own by every way, and only that;
// after a restart of the broker too. No value is left anywhere.
func TestProjects(t *testing.T) {
	h := newHost(t)
	h.start()
	sidecar := h.sidecar()
	sidecar.set("NPM_TOKEN", npmToken)
	sidecar.set("GH_TOKEN", ghToken)
	sidecar.set("aws/key", field)
	sidecar.set("cert", cert)
	until(t, func() error {
		names, err := h.ctl("list")
		if err == nil && names != "GH_TOKEN\nNPM_TOKEN\naws\ncert\n" {
			err = fmt.Errorf("the broker has %q", names)
		}
		return err
	})
	sidecar.mustExec("keyhatch-sidecar", "health", "--store", "dir:/secrets")

	// api runs as root, and is declared.
	api := h.project("api", "  NPM_TOKEN:\n  aws: {as: file, path: ~/.aws/key, template: 'key={{key}}'}\n")
	h.withFeature(api, `{"files": true}`, `"image": "`+shared.image+`"`)
	h.mustCtl("register", "--persist", api)
	inAPI := h.up("", h.command("keyhatchctl", "--socket", h.run+"/admin/admin.sock", "up", api, "--", "--buildkit", "never"))

	// web runs as uid 1000, and on the host it is another's. A link leads to it.
	web := h.project("web", "  GH_TOKEN:\n  cert: {as: file, path: ~/.cert}\n"+
		"helpers:\n  git: [{host: git.example, username: dev, secret: GH_TOKEN}]\n")
	h.withFeature(web, `{"files": true, "gitHelper": true}`, `"build": {"dockerfile": "Dockerfile"}, "remoteUser": "dev"`)
	write(t, web+"/.devcontainer/Dockerfile", "FROM "+shared.image+"\nRUN useradd -m -u 1000 -s /bin/bash dev\n")
	if err := os.Chown(web, 4321, 4321); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(h.dir, "link")
	if err := os.Symlink(filepath.Join(h.dir, "src"), link); err != nil {
		t.Fatal(err)
	}
	h.mustCtl("register", "--persist", link+"/web", "--allow-uid", "1000")
	inWeb := h.up("1000", h.command("devcontainer", "up", "--buildkit", "never", "--workspace-folder", link+"/web"))

	// plain has no Feature and needs one command, which registers it and mounts
	// the socket and the client.
	plain := h.project("plain", "  NPM_TOKEN:\n")
	const untouched = "{\n  // As its authors wrote it.\n  \"image\": \"IMAGE\", \"runArgs\": [\"--network=none\"],\n}\n"
	write(t, plain+"/.devcontainer.json", strings.Replace(untouched, "IMAGE", shared.image, 1))
	inPlain := h.up("", h.command("keyhatchctl", "--socket", h.run+"/admin/admin.sock", "up", plain, "--", "--buildkit", "never"))

	each := func(t *testing.T) {
		inAPI.serves(t, "NPM_TOKEN", "NPM_TOKEN", npmToken)
		inAPI.denies(t, "GH_TOKEN")
		inAPI.denies(t, "cert")
		inWeb.serves(t, "GH_TOKEN", "GH_TOKEN", ghToken)
		inWeb.denies(t, "NPM_TOKEN")
		inWeb.denies(t, "aws")
		inPlain.serves(t, "NPM_TOKEN", "NPM_TOKEN", npmToken)
		inPlain.denies(t, "GH_TOKEN")
	}
	t.Run("each its own", each)
	t.Run("files", func(t *testing.T) {
		inAPI.rendered(t, "/root/.aws/key", "key="+field)
		inWeb.rendered(t, "/home/dev/.cert", cert)
	})
	t.Run("git asks the helper", func(t *testing.T) {
		want := "protocol=https\nhost=git.example\nusername=dev\npassword=" + ghToken + "\n"
		if got, err := inWeb.exec("sh", "-c", `printf 'protocol=https\nhost=git.example\n\n' | git credential fill`); err != nil || got != want {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("a user who is not allowed", func(t *testing.T) {
		stranger := &container{h, inAPI.id, "4321"}
		out, err := stranger.exec("keyhatch", "doctor")
		if err == nil || !strings.Contains(out, "uid_refused") || !strings.Contains(out, "--allow-uid 4321") {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("another uid", func(t *testing.T) {
		if uid := inWeb.mustExec("id", "-u"); uid != "1000\n" {
			t.Errorf("web runs as uid %s", uid)
		}
	})
	t.Run("doctor", func(t *testing.T) {
		for _, c := range []*container{inAPI, inWeb, inPlain} {
			if out, err := c.exec("keyhatch", "doctor"); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}
		if out, err := h.ctl("doctor"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})

	// Killed, it has no time to tidy up. Its successor knows what is declared,
	// and the sidecar comes back by itself.
	h.kill(os.Kill)
	h.start()
	h.mustCtl("register", plain)
	t.Run("each its own after a restart", each)
	t.Run("files after a rotation", func(t *testing.T) {
		sidecar.set("aws/key", rotated)
		sidecar.set("cert", rotated)
		inAPI.rendered(t, "/root/.aws/key", "key="+rotated)
		inWeb.rendered(t, "/home/dev/.cert", rotated)
	})
	// The engine finds the mount again by the link that it is named by.
	t.Run("each its own after a restart of the containers", func(t *testing.T) {
		for _, c := range []*container{inAPI, inWeb, inPlain} {
			mustOutput(t, h.command("docker", "restart", "-t", "1", c.id))
		}
		each(t)
	})
	t.Run("nothing left", func(t *testing.T) {
		h.searched(t, []*container{sidecar, inAPI, inWeb, inPlain}, npmToken, ghToken, field, cert, rotated)
	})
}

// serves sees that the secret can be had by each way that people have.
func (c *container) serves(t *testing.T, name, variable, value string) {
	t.Helper()
	for how, args := range map[string][]string{
		"docker exec":             {"keyhatch", "get", "--wait", "30s", name},
		"an empty environment":    {"env", "-i", "/usr/local/bin/keyhatch", "get", "--wait", "30s", name},
		"the environment":         {"keyhatch", "run", "--wait", "30s", "--only", name, "--", "sh", "-c", `printf %s "$` + variable + `"`},
		"a shell with no profile": {"sh", "-c", "keyhatch get --wait 30s " + name},
	} {
		if got, err := c.exec(args...); err != nil || got != value {
			t.Errorf("by %s: %q, %v", how, got, err)
		}
	}
}

// denies sees that the secret cannot be had, and nothing of it is said.
func (c *container) denies(t *testing.T, name string) {
	t.Helper()
	out, err := c.exec("keyhatch", "get", name)
	exit, ok := exitCode(err)
	if !ok || exit != 4 || strings.Contains(out+err.Error(), "TRIPWIRE") {
		t.Errorf("%s: exit code %d: %q, %v", name, exit, out, err)
	}
}

// rendered sees a file that the Feature's start renders, where it is declared
// and in memory.
func (c *container) rendered(t *testing.T, path, want string) {
	t.Helper()
	until(t, func() error {
		got, err := c.exec("cat", path)
		if err == nil && got != want {
			err = fmt.Errorf("%s holds %q", path, got)
		}
		return err
	})
	if kind := c.mustExec("stat", "-f", "-L", "-c", "%T", path); kind != "tmpfs\n" {
		t.Errorf("%s is on %s", path, kind)
	}
}

// TestUnregistered: the engine refuses to start a container whose project is
// not registered, and its words are those that the README explains.
func TestUnregistered(t *testing.T) {
	h := newHost(t)
	h.start()
	dir := h.project("api", "  NPM_TOKEN:\n")
	h.withFeature(dir, `{}`, `"image": "`+shared.image+`"`)
	out, err := output(h.command("devcontainer", "up", "--buildkit", "never", "--workspace-folder", dir))
	if err == nil || !strings.Contains(err.Error(), "bind source path does not exist: "+h.run+"/devcontainers/") {
		t.Errorf("%v\n%s", err, out)
	}
}
