package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
