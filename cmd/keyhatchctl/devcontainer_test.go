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

// TestDevcontainerIDMatchesDevContainerCLI compares computed IDs with IDs that @devcontainers/cli
// 0.89.0 used and docker inspect showed. They must be the same. make e2e-devcontainer compares
// computed IDs with those of the installed CLI.
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

// TestDevcontainerIDsCoverConfigsAndPaths computes the IDs for several paths of a project. For
// each path, there must be an ID for each of the two usual devcontainer.json files, even if the
// file does not exist, and for each other devcontainer.json that exists.
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

// TestDevcontainerIDsReadLimitedEntries creates a .devcontainer directory with too many entries,
// and a FIFO named .devcontainer. devcontainerIDs must read only maxConfigEntries entries, and
// must not block. Otherwise, untrusted code could make a command slow, or block it.
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

// TestDevcontainerIDsDoNotFollowLinksOutOfTree creates links in a project's directory.
// devcontainerIDs must follow a link to a place within this directory, and must not follow a link
// that leads to another directory. Such a link could lead to an automounted directory that hangs.
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
		want         int // number of IDs for files in subdirectories of .devcontainer
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
