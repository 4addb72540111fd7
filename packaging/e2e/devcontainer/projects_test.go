package devcontainer

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// These are the values of the secrets. They contain quotes and backslashes, which JSON
// escapes. Each value is long enough that the test can find its base64 form inside other
// data.
const (
	npmToken = `TRIPWIRE-npm-"quoted"\and-back`
	ghToken  = `TRIPWIRE-gh-"quoted"\and-back`
	awsKey   = `TRIPWIRE-field-$1-"quoted"\1-back`
	cert     = `TRIPWIRE-cert-"quoted"\and-back`
	rotated  = `TRIPWIRE-rotated-"quoted"\and-back`
)

// writeProject creates a project's directory with a manifest, and returns the path of the
// directory. The argument secrets is the YAML text under the manifest's key secrets.
func (h *host) writeProject(name, secrets string) string {
	dir := filepath.Join(h.dir, "src", name)
	writeFile(h.t, dir+"/.devcontainer/keyhatch.yaml", "schema_version: 1\nproject: "+name+"\nsecrets:\n"+secrets)
	return dir
}

// addFeature unpacks the Feature's tarball into a project's directory, and writes a
// devcontainer.json that uses the Feature.
func (h *host) addFeature(dir, options, otherProperties string) {
	h.t.Helper()
	featureDir := filepath.Join(dir, ".devcontainer", "keyhatch")
	if err := os.MkdirAll(featureDir, 0o755); err != nil {
		h.t.Fatal(err)
	}
	if _, err := output(exec.Command("tar", "-xzf", shared.feature, "-C", featureDir)); err != nil {
		h.t.Fatal(err)
	}
	writeFile(h.t, dir+"/.devcontainer/devcontainer.json",
		`{"features": {"./keyhatch": `+options+`}, "runArgs": ["--network=none"], `+otherProperties+`}`)
}

// startSidecar starts the sidecar's dev container from the template.
func (h *host) startSidecar() *container {
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
			h.t.Errorf("the template's file %s contains an option for which this test has no value", file)
		}
		writeFile(h.t, filepath.Join(dir, ".devcontainer", file), applied)
	}
	h.t.Cleanup(func() { output(exec.Command("docker", "volume", "rm", volume)) })
	return h.startContainer("", h.command("devcontainer", "up", "--buildkit", "never", "--workspace-folder", dir))
}

// setSecret adds a secret to the sidecar's store. keyhatch-sidecar set reads the value from
// standard input.
func (c *container) setSecret(name, value string) {
	c.host.t.Helper()
	cmd := c.host.command("docker", "exec", "-i", c.id, "keyhatch-sidecar", "set", name, "--store", "dir:/secrets")
	cmd.Stdin = strings.NewReader(value)
	if _, err := output(cmd); err != nil {
		c.host.t.Fatal(err)
	}
}

// TestEachProjectGetsOnlyItsSecrets starts a broker, a sidecar from the template, and
// projects with and without the Feature. Each project must get only its own secrets, also
// after a restart of the broker and after a restart of the containers. No value of a secret
// may remain on a disk, in a log, or in an image.
func TestEachProjectGetsOnlyItsSecrets(t *testing.T) {
	h := newHost(t)
	h.startBroker()
	sidecar := h.startSidecar()
	sidecar.setSecret("NPM_TOKEN", npmToken)
	sidecar.setSecret("GH_TOKEN", ghToken)
	sidecar.setSecret("aws/key", awsKey)
	sidecar.setSecret("cert", cert)
	waitFor(t, func() error {
		names, err := h.keyhatchctl("list")
		if err == nil && names != "GH_TOKEN\nNPM_TOKEN\naws\ncert\n" {
			err = fmt.Errorf("the broker has these secrets: %q", names)
		}
		return err
	})
	sidecar.mustExec("keyhatch-sidecar", "health", "--store", "dir:/secrets")

	// The container of project api runs as root. The project is declared (--persist).
	apiDir := h.writeProject("api", "  NPM_TOKEN:\n  aws: {as: file, path: ~/.aws/key, template: 'key={{key}}'}\n")
	h.addFeature(apiDir, `{"files": true}`, `"image": "`+shared.image+`"`)
	h.mustKeyhatchctl("register", "--persist", "--yes", apiDir)
	apiContainer := h.startContainer("", h.command("keyhatchctl", "--socket", h.runtimeDir+"/admin/admin.sock", "up", apiDir, "--", "--buildkit", "never"))

	// The container of project web runs as uid 1000, although the directory of project web on the
	// host belongs to another uid. The test registers project web through a symbolic link.
	webDir := h.writeProject("web", "  GH_TOKEN:\n  cert: {as: file, path: ~/.cert}\n"+
		"helpers:\n  git: [{host: git.example, username: dev, secret: GH_TOKEN}]\n")
	h.addFeature(webDir, `{"files": true, "gitHelper": true}`, `"build": {"dockerfile": "Dockerfile"}, "remoteUser": "dev"`)
	writeFile(t, webDir+"/.devcontainer/Dockerfile", "FROM "+shared.image+"\nRUN useradd -m -u 1000 -s /bin/bash dev\n")
	if err := os.Chown(webDir, 4321, 4321); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(h.dir, "link")
	if err := os.Symlink(filepath.Join(h.dir, "src"), link); err != nil {
		t.Fatal(err)
	}
	h.mustKeyhatchctl("register", "--persist", "--yes", link+"/web", "--allow-uid", "1000")
	webContainer := h.startContainer("1000", h.command("devcontainer", "up", "--buildkit", "never", "--workspace-folder", link+"/web"))

	// The project plain does not use the Feature. keyhatchctl up registers this project and
	// mounts the socket's directory and the keyhatch command.
	plainDir := h.writeProject("plain", "  NPM_TOKEN:\n")
	const configuration = "{\n  // A devcontainer.json can contain comments.\n  \"image\": \"IMAGE\", \"runArgs\": [\"--network=none\"],\n}\n"
	writeFile(t, plainDir+"/.devcontainer.json", strings.Replace(configuration, "IMAGE", shared.image, 1))
	plainContainer := h.startContainer("", h.command("keyhatchctl", "--socket", h.runtimeDir+"/admin/admin.sock", "up", plainDir, "--", "--buildkit", "never"))

	checkAccess := func(t *testing.T) {
		apiContainer.checkServed(t, "NPM_TOKEN", "NPM_TOKEN", npmToken)
		apiContainer.checkDenied(t, "GH_TOKEN")
		apiContainer.checkDenied(t, "cert")
		webContainer.checkServed(t, "GH_TOKEN", "GH_TOKEN", ghToken)
		webContainer.checkDenied(t, "NPM_TOKEN")
		webContainer.checkDenied(t, "aws")
		plainContainer.checkServed(t, "NPM_TOKEN", "NPM_TOKEN", npmToken)
		plainContainer.checkDenied(t, "GH_TOKEN")
	}
	t.Run("each project gets only its secrets", checkAccess)
	t.Run("files", func(t *testing.T) {
		apiContainer.checkRendered(t, "/root/.aws/key", "key="+awsKey)
		webContainer.checkRendered(t, "/home/dev/.cert", cert)
	})
	t.Run("git asks the helper", func(t *testing.T) {
		want := "protocol=https\nhost=git.example\nusername=dev\npassword=" + ghToken + "\n"
		if got, err := webContainer.exec("sh", "-c", `printf 'protocol=https\nhost=git.example\n\n' | git credential fill`); err != nil || got != want {
			t.Errorf("git credential fill printed %q, error %v, want %q", got, err, want)
		}
	})
	t.Run("a user who is not allowed", func(t *testing.T) {
		otherUser := &container{h, apiContainer.id, "4321"}
		out, err := otherUser.exec("keyhatch", "doctor")
		if err == nil || !strings.Contains(out, "uid_refused") || !strings.Contains(out, "--allow-uid 4321") {
			t.Errorf("keyhatch doctor does not report that uid 4321 is not allowed: %v\n%s", err, out)
		}
	})
	t.Run("another uid", func(t *testing.T) {
		if uid := webContainer.mustExec("id", "-u"); uid != "1000\n" {
			t.Errorf("the container of project web runs as uid %s, want 1000", uid)
		}
	})
	t.Run("doctor", func(t *testing.T) {
		for _, c := range []*container{apiContainer, webContainer, plainContainer} {
			if out, err := c.exec("keyhatch", "doctor"); err != nil {
				t.Errorf("keyhatch doctor found a problem: %v\n%s", err, out)
			}
		}
		if out, err := h.keyhatchctl("doctor"); err != nil {
			t.Errorf("keyhatchctl doctor found a problem: %v\n%s", err, out)
		}
	})

	// Kill the broker, so that it cannot remove its files. The next broker must register the
	// declared projects, and the sidecar must connect to the next broker.
	h.stopBroker(os.Kill)
	h.startBroker()
	h.mustKeyhatchctl("register", plainDir)
	t.Run("each project gets only its secrets after a restart of the broker", checkAccess)
	t.Run("files after a rotation", func(t *testing.T) {
		sidecar.setSecret("aws/key", rotated)
		sidecar.setSecret("cert", rotated)
		apiContainer.checkRendered(t, "/root/.aws/key", "key="+rotated)
		webContainer.checkRendered(t, "/home/dev/.cert", rotated)
	})
	// The path of the Feature's mount contains a symbolic link. When a container restarts, the
	// engine resolves this link again, and the container must have the same access as before.
	t.Run("each project gets only its secrets after a restart of the containers", func(t *testing.T) {
		for _, c := range []*container{apiContainer, webContainer, plainContainer} {
			mustOutput(t, h.command("docker", "restart", "-t", "1", c.id))
		}
		checkAccess(t)
	})
	t.Run("no value is left", func(t *testing.T) {
		h.checkNoValueLeft(t, []*container{sidecar, apiContainer, webContainer, plainContainer}, npmToken, ghToken, awsKey, cert, rotated)
	})
}

// checkServed checks that the container can fetch the secret in four ways: with keyhatch get,
// with an empty environment, with keyhatch run, and in a shell.
func (c *container) checkServed(t *testing.T, name, variable, value string) {
	t.Helper()
	for way, args := range map[string][]string{
		"docker exec":             {"keyhatch", "get", "--wait", "30s", name},
		"an empty environment":    {"env", "-i", "/usr/local/bin/keyhatch", "get", "--wait", "30s", name},
		"the environment":         {"keyhatch", "run", "--wait", "30s", "--only", name, "--", "sh", "-c", `printf %s "$` + variable + `"`},
		"a shell with no profile": {"sh", "-c", "keyhatch get --wait 30s " + name},
	} {
		if got, err := c.exec(args...); err != nil || got != value {
			t.Errorf("getting %s with %s: got %q, error %v, want %q", name, way, got, err, value)
		}
	}
}

// checkDenied checks that the container cannot get the secret, and that the output of
// keyhatch get does not contain the value of a secret.
func (c *container) checkDenied(t *testing.T, name string) {
	t.Helper()
	out, err := c.exec("keyhatch", "get", name)
	exit, ok := exitCode(err)
	if !ok || exit != 4 || strings.Contains(out+err.Error(), "TRIPWIRE") {
		t.Errorf("getting %s: exit code %d, want 4 and no value: %q, %v", name, exit, out, err)
	}
}

// checkRendered checks the content of a file that the Feature's start script renders. It
// also checks that the file is on a tmpfs.
func (c *container) checkRendered(t *testing.T, path, want string) {
	t.Helper()
	waitFor(t, func() error {
		got, err := c.exec("cat", path)
		if err == nil && got != want {
			err = fmt.Errorf("%s contains %q", path, got)
		}
		return err
	})
	if filesystem := c.mustExec("stat", "-f", "-L", "-c", "%T", path); filesystem != "tmpfs\n" {
		t.Errorf("the file system of %s is %s, want tmpfs", path, filesystem)
	}
}

// TestEngineRefusesUnregisteredProject tries to start the container of a project that is
// not registered. The engine must refuse to start the container, with the error that
// README.md explains.
func TestEngineRefusesUnregisteredProject(t *testing.T) {
	h := newHost(t)
	h.startBroker()
	dir := h.writeProject("api", "  NPM_TOKEN:\n")
	h.addFeature(dir, `{}`, `"image": "`+shared.image+`"`)
	out, err := output(h.command("devcontainer", "up", "--buildkit", "never", "--workspace-folder", dir))
	if err == nil || !strings.Contains(err.Error(), "bind source path does not exist: "+h.runtimeDir+"/devcontainers/") {
		t.Errorf("the engine did not refuse to start the container with the expected error: %v\n%s", err, out)
	}
}
