package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TestDevcontainerIDMatchesDevContainerCLI compares the computed values with those of
// @devcontainers/cli 0.89.0, which were read with docker inspect. make
// e2e-devcontainer compares them with the real CLI.
func TestDevcontainerIDMatchesDevContainerCLI(t *testing.T) {
	for _, c := range []struct {
		folder, config string
		id             schema.DevcontainerID
	}{
		{"/srv/api", ".devcontainer.json", "1d5n73cfp1lct35ma5epidthv6ea3dtarcg1i7iaj3p2chniaet0"},
		{"/srv/api", ".devcontainer/devcontainer.json", "198g1hkhvf359jtadobqs5fmg5ihj61e5l7ftsgjr7baomm0kojs"},
		{"/srv/api", ".devcontainer/gpu/devcontainer.json", "1ho8rag848mia8qsaf9dmh69bf6bt3kse6t69u7l3k6pvrg95a7t"},
		{"/srv/a & b/<é>", ".devcontainer.json", "008aopccp8mg4gloptr6uf4g9jue93411glvjqebrmifaeu9s2rh"},
		{"/srv/a & b/<é>", ".devcontainer/devcontainer.json", "1vbnbcqvlsd0218rjbu1mslf1lqjj3iksi4nsu36uhtg2m1n6bah"},
		{"/srv/a & b/<é>", ".devcontainer/gpu/devcontainer.json", "11d9jifpqij8bjvdgpmg2g2r4o0jkn8225suegc38ub4kakuofgl"},
	} {
		if got := devcontainerID(c.folder, c.folder+"/"+c.config); got != c.id {
			t.Errorf("%s %s: %s, but the Dev Container CLI uses %s", c.folder, c.config, got, c.id)
		}
	}
}

// TestDevcontainerIDsCoverConfigsAndPaths checks that there is an ID for each usual
// path of a devcontainer.json, even if the file does not exist, for each other
// existing devcontainer.json, and for each path of the project.
func TestDevcontainerIDsCoverConfigsAndPaths(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, link := filepath.Join(root, "a[p]i"), filepath.Join(root, "link")
	for _, sub := range []string{"gpu", "empty", "odd/devcontainer.json"} {
		if err := os.MkdirAll(filepath.Join(dir, ".devcontainer", sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ".devcontainer", "gpu", "devcontainer.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a[p]i", link); err != nil {
		t.Fatal(err)
	}
	idsFor := func(dir string) (ids []schema.DevcontainerID) {
		for _, config := range []string{".devcontainer/devcontainer.json", ".devcontainer.json", ".devcontainer/gpu/devcontainer.json"} {
			ids = append(ids, devcontainerID(dir, dir+"/"+config))
		}
		return ids
	}
	for _, c := range []struct {
		arg  string
		want []schema.DevcontainerID
	}{
		{dir, idsFor(dir)},
		{dir + "/", idsFor(dir)},
		{dir + "/gpu/..", idsFor(dir)},
		{link, append(idsFor(dir), idsFor(link)...)},
	} {
		resolved, err := resolveProjectDir(&globalOptions{}, "register", c.arg)
		if err != nil {
			t.Fatal(err)
		}
		var got []schema.DevcontainerID
		for _, folder := range resolved.folders() {
			ids, _ := devcontainerIDs(folder)
			got = append(got, ids...)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v\nwant %v", c.arg, got, c.want)
		}
	}
}

// TestDevcontainerIDsReadLimitedEntries checks that untrusted code cannot make a command slow with
// a directory that has many entries, or block the command with a FIFO.
func TestDevcontainerIDsReadLimitedEntries(t *testing.T) {
	dir := t.TempDir()
	for i := range maxConfigEntries + 100 {
		config := filepath.Join(dir, ".devcontainer", strconv.Itoa(i), "devcontainer.json")
		if err := os.MkdirAll(filepath.Dir(config), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(config, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if ids, ignored := devcontainerIDs(dir); len(ids) != maxFolderIDs || len(ids)+ignored != 2+maxConfigEntries {
		t.Errorf("got %d IDs and %d ignored files", len(ids), ignored)
	}
	blocked := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(blocked, ".devcontainer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ids, ignored := devcontainerIDs(blocked); len(ids) != 2 || ignored != 0 {
		t.Errorf("with a FIFO, got %d IDs and %d ignored files", len(ids), ignored)
	}
}

// TestDevcontainerIDsDoNotFollowLinksOutOfTree checks that untrusted code cannot make a command
// read another directory with a link, for example an automounted directory that hangs. A link
// within the project's directory is followed.
func TestDevcontainerIDsDoNotFollowLinksOutOfTree(t *testing.T) {
	newConfig := func(dir string) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "devcontainer.json"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		link, target string
		want         int // IDs of devcontainer.json files below .devcontainer
	}{
		"an entry that leads out of the tree":        {".devcontainer/x", "../../outside/a", 0},
		"an entry with an absolute target":           {".devcontainer/x", "/outside/a", 0},
		"an entry that leads to the tree":            {".devcontainer/x", "../inside/a", 1},
		".devcontainer leads out of the tree":        {".devcontainer", "../outside", 0},
		".devcontainer leads to the tree":            {".devcontainer", "inside", 1},
		"a devcontainer.json that leads out":         {".devcontainer/x/devcontainer.json", "../../../outside/a/devcontainer.json", 0},
		"a devcontainer.json that leads to the tree": {".devcontainer/x/devcontainer.json", "../../inside/a/devcontainer.json", 1},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			newConfig(filepath.Join(root, "outside", "a"))
			project := filepath.Join(root, "project")
			newConfig(filepath.Join(project, "inside", "a"))
			if err := os.MkdirAll(filepath.Join(project, filepath.Dir(c.link)), 0o755); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(c.target, "/") {
				c.target = root + c.target
			}
			if err := os.Symlink(c.target, filepath.Join(project, c.link)); err != nil {
				t.Fatal(err)
			}
			if ids, ignored := devcontainerIDs(project); len(ids) != 2+c.want || ignored != 0 {
				t.Errorf("got %d IDs and %d ignored files, want %d IDs", len(ids), ignored, 2+c.want)
			}
		})
	}
}
