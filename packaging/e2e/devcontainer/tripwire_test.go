package devcontainer

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// encodings returns the forms in which a file can contain a value. The forms are plain text
// and base64 at each of the three possible offsets, each with and without JSON escapes.
func encodings(value string) (all [][]byte) {
	escaped, _ := json.Marshal(value)
	for _, text := range []string{value, strings.Trim(string(escaped), `"`)} {
		all = append(all, []byte(text))
		for offset := range 3 {
			encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", offset) + text))
			// The first and the last four base64 digits depend on the bytes before and after
			// the value, so remove these digits.
			all = append(all, []byte(encoded[4:len(encoded)-4]))
		}
	}
	return all
}

// containsAny reads all of r and reports whether r contains one of the values in one of the
// forms that encodings returns.
func containsAny(r io.Reader, values ...string) (found bool, err error) {
	var patterns [][]byte
	longest := 0
	for _, value := range values {
		for _, form := range encodings(value) {
			patterns = append(patterns, form)
			longest = max(longest, len(form))
		}
	}
	buffer, carried := make([]byte, 1<<20), 0
	for {
		n, err := r.Read(buffer[carried:])
		window := buffer[:carried+n]
		for _, pattern := range patterns {
			found = found || bytes.Contains(window, pattern)
		}
		carried = copy(buffer, window[max(0, len(window)-longest):])
		if err == io.EOF {
			return found, nil
		}
		if err != nil {
			return found, err
		}
	}
}

// checkNoValueLeft checks that the values are not in the containers' disks, logs, metadata,
// and images, and not in the files of the host. Then it writes a value to a container's disk
// and image, and checks that the same search finds the value there.
func (h *host) checkNoValueLeft(t *testing.T, containers []*container, values ...string) {
	checkOutput := func(place string, want bool, cmd *exec.Cmd) {
		t.Helper()
		pipe, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		found, err := containsAny(pipe, values...)
		if waitErr := cmd.Wait(); err == nil {
			err = waitErr
		}
		if err != nil || found != want {
			t.Errorf("search in %s: a value was found: %v, want %v (error: %v)", place, found, want, err)
		}
	}
	docker := func(args ...string) *exec.Cmd { return h.command("docker", args...) }
	for _, c := range containers {
		image := strings.TrimSpace(mustOutput(t, docker("inspect", "--format", "{{.Image}}", c.id)))
		checkOutput("the container's disk", false, docker("export", c.id))
		checkOutput("docker inspect", false, docker("inspect", c.id))
		checkOutput("docker logs", false, docker("logs", c.id))
		checkOutput("the image's layers and history", false, docker("save", image))
		checkOutput("the image's labels", false, docker("inspect", image))
	}
	// Search the host's directory, which contains the projects with the lockfiles of their
	// Features, and the broker's log, audit log, and runtime directory.
	filesRead := 0
	if err := filepath.WalkDir(h.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		filesRead++
		found, err := containsAny(file, values...)
		if found {
			t.Errorf("the file %s contains the value of a secret", path)
		}
		return err
	}); err != nil || filesRead < 10 {
		t.Errorf("the search read %d files of the host, want at least 10 (error: %v)", filesRead, err)
	}

	// Check that the search works: write a value in each form to a container's disk, and
	// also to an image. The search must find the value.
	c := containers[len(containers)-1]
	for i, form := range encodings(values[0]) {
		plantCmd := h.command("docker", "exec", "-i", c.id, "sh", "-c", "cat >/root/planted")
		plantCmd.Stdin = bytes.NewReader(append(append([]byte("xx"), form...), "xx"...))
		mustOutput(t, plantCmd)
		checkOutput("a disk to which the test wrote a value", true, docker("export", c.id))
		if i == 0 {
			escaped, _ := json.Marshal(values[0])
			image := strings.TrimSpace(mustOutput(t, docker("commit", "--change", "LABEL planted="+string(escaped), c.id)))
			checkOutput("an image layer to which the test wrote a value", true, docker("save", image))
			checkOutput("an image label to which the test wrote a value", true, docker("inspect", image))
			mustOutput(t, docker("rmi", image))
		}
	}
}

func mustOutput(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := output(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func exitCode(err error) (int, bool) {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), true
	}
	return 0, err == nil
}
