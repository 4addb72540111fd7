package devcontainer

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// featureChecks is a shell script that checks the files of an installed Feature.
const featureChecks = `
set -e
test "$(stat -c '%a %U' /usr/local/bin/keyhatch)" = "755 root"
keyhatch --version
test "$(readlink -f /usr/local/bin/git-credential-keyhatch)" = /usr/local/bin/keyhatch
test "$(readlink -f /usr/local/bin/docker-credential-keyhatch)" = /usr/local/bin/keyhatch
test -x /usr/local/share/keyhatch/post-start
sh -n /usr/local/share/keyhatch/post-start
bash -n /usr/share/bash-completion/completions/keyhatch
grep -q '^#compdef keyhatch' /usr/local/share/zsh/site-functions/_keyhatch
grep -q 'complete -c keyhatch' /usr/share/fish/vendor_completions.d/keyhatch.fish
test -z "$(find /usr/local/bin -name '.keyhatch*')"
`

// TestFeatureInstallsWithAnyShellAndWithoutNetwork runs the Feature's install.sh twice in each
// of several shells, without a network. It runs install.sh with and without a remote user, and
// with and without options. Each run must succeed and install the files that featureChecks
// checks.
func TestFeatureInstallsWithAnyShellAndWithoutNetwork(t *testing.T) {
	featureDir := t.TempDir()
	if err := os.Chmod(featureDir, 0o755); err != nil {
		t.Fatal(err)
	}
	mustOutput(t, exec.Command("tar", "-xzf", shared.feature, "-C", featureDir))
	h := newHost(t)
	for _, shell := range []string{"dash", "busybox sh", "bash --posix"} {
		for _, user := range []string{"", "_REMOTE_USER=dev _REMOTE_USER_HOME=/home/dev"} {
			for _, options := range []string{"GITHELPER=true FILES=true", ""} {
				t.Run(strings.Join([]string{shell, user, options}, ","), func(t *testing.T) {
					// The Dev Container CLI runs install.sh from a copy of the Feature's
					// folder and deletes the copy afterwards. This script does the same.
					script := "cp -r /feature /tmp/f && cd /tmp/f && for again in 1 2; do env -i PATH=/usr/bin:/bin " + user + " " + options + " " +
						shell + " ./install.sh || exit; done && cd / && rm -rf /tmp/f && " + featureChecks
					if options != "" {
						script += "grep -q 'keyhatch credential install' /usr/local/share/keyhatch/post-start\n" +
							"grep -q 'keyhatch files .*--watch' /usr/local/share/keyhatch/post-start\n"
					} else {
						script += "! grep -E 'credential install|keyhatch files' /usr/local/share/keyhatch/post-start\n"
					}
					mustOutput(t, h.command("docker", "run", "--rm", "--network", "none", "-v", featureDir+":/feature:ro", shared.image, "sh", "-c", script))
				})
			}
		}
	}
	t.Run("no binary", func(t *testing.T) {
		script := "mkdir /tmp/f && cp /feature/install.sh /tmp/f && sh /tmp/f/install.sh"
		_, err := output(h.command("docker", "run", "--rm", "--network", "none", "-v", featureDir+":/feature:ro", shared.image, "sh", "-c", script))
		if err == nil || !strings.Contains(err.Error(), "run make feature") {
			t.Errorf("install.sh without a binary: %v, want an error that contains %q", err, "run make feature")
		}
	})
}
