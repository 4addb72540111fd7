package main

import (
	"crypto/sha256"
	"encoding/json"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// Untrusted code can create any number of devcontainer.json files. These limits keep a request
// shorter than schema.MaxRequest.
const (
	maxFolderIDs  = 50               // maximum number of IDs of one folder
	maxProjectIDs = 2 * maxFolderIDs // maximum number of IDs of a project, which has one or two folders
)

// maxConfigEntries is the maximum number of entries of .devcontainer that devcontainerIDs reads.
const maxConfigEntries = 500

// devcontainerIDs returns the possible values of ${devcontainerId} for a project that is opened
// by the path folder. The Feature mounts the link whose name is this value. Each
// devcontainer.json has its own value. devcontainerIDs returns at most maxFolderIDs values, and
// ignored is the number of further devcontainer.json files in the first maxConfigEntries entries
// of .devcontainer.
//
// Untrusted code can write to the folder. Therefore devcontainerIDs follows links only within the
// folder. Otherwise, a link to an automounted directory could make this command mount the
// directory, or wait for a server that does not answer.
func devcontainerIDs(folder string) (ids []schema.DevcontainerID, ignored int) {
	// Include these two files even if they do not exist, because they can be created after
	// the registration.
	configs := []string{filepath.Join(folder, ".devcontainer", "devcontainer.json"), filepath.Join(folder, ".devcontainer.json")}
	// If this user cannot read the folder, the Dev Container CLI of this user cannot find a
	// configuration in the folder either.
	if root, err := manifest.OpenRoot(folder); err == nil {
		defer root.Close()
		d, err := root.OpenFile(".devcontainer", os.O_RDONLY|unix.O_DIRECTORY, 0)
		for _, entry := range sortEntries(d, err, maxConfigEntries) {
			config := filepath.Join(".devcontainer", entry.Name(), "devcontainer.json")
			if info, err := root.Stat(config); err == nil && info.Mode().IsRegular() {
				configs = append(configs, filepath.Join(folder, config))
			}
		}
	}
	ignored = max(0, len(configs)-maxFolderIDs)
	for _, config := range configs[:len(configs)-ignored] {
		ids = append(ids, devcontainerID(folder, config))
	}
	return ids, ignored
}

// readEntries returns at most limit entries of a directory, sorted by name. If dir cannot be
// read, or is not a directory, the result is empty. O_DIRECTORY is necessary because untrusted
// code can replace dir with a FIFO, and opening a FIFO can block.
func readEntries(dir string, limit int) []fs.DirEntry {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	return sortEntries(d, err, limit)
}

// sortEntries reads at most limit entries of the open directory d, sorts them by name, and closes
// d. err is the error of opening d. If err is not nil, the result is empty.
func sortEntries(d *os.File, err error, limit int) []fs.DirEntry {
	if err != nil {
		return nil
	}
	defer d.Close()
	entries, _ := d.ReadDir(limit)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries
}

// devcontainerID computes ${devcontainerId} as in the Dev Container specification
// (containers.dev/implementors/spec, devcontainerId). The value is the SHA-256 hash of two labels
// of the container, encoded as JSON with sorted keys and no spaces. It is written in base 32 with
// the digits 0-9a-v.
func devcontainerID(folder, config string) schema.DevcontainerID {
	var labels strings.Builder
	enc := json.NewEncoder(&labels)
	enc.SetEscapeHTML(false) // JSON.stringify does not escape & and <
	// The encoder sorts the keys of a map. Encoding strings cannot fail.
	enc.Encode(map[string]string{"devcontainer.local_folder": folder, "devcontainer.config_file": config})
	sum := sha256.Sum256([]byte(strings.TrimSuffix(labels.String(), "\n")))
	id := new(big.Int).SetBytes(sum[:]).Text(32)
	return schema.DevcontainerID(strings.Repeat("0", 52-len(id)) + id)
}
