package main

import (
	"crypto/sha256"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// devcontainerIDs are what ${devcontainerId} can be for a project, so that the
// Feature's mount, which is named by it, finds the project with no edit in it:
// one for each way to the directory and each devcontainer.json in it.
//
// dirArg is the directory as the operator wrote it, and realPath has its links
// resolved. The tools use a path as it was given, so both count.
func devcontainerIDs(dirArg, realPath string) ([]schema.DevcontainerID, error) {
	absolutePath, err := filepath.Abs(dirArg)
	if err != nil {
		return nil, err
	}
	var ids []schema.DevcontainerID
	for _, dir := range slices.Compact([]string{realPath, absolutePath}) {
		// These two may be written after the project is registered.
		configs := []string{filepath.Join(dir, ".devcontainer", "devcontainer.json"), filepath.Join(dir, ".devcontainer.json")}
		// Not a glob: brackets in the directory's own name would be a pattern.
		// What cannot be read here has no devcontainer.json for the tools either.
		entries, _ := os.ReadDir(filepath.Join(dir, ".devcontainer"))
		for _, entry := range entries {
			config := filepath.Join(dir, ".devcontainer", entry.Name(), "devcontainer.json")
			if info, err := os.Stat(config); err == nil && info.Mode().IsRegular() {
				configs = append(configs, config)
			}
		}
		for _, config := range configs {
			ids = append(ids, devcontainerID(dir, config))
		}
	}
	return ids, nil
}

// devcontainerID is ${devcontainerId} as the Dev Container specification has it
// (containers.dev/implementors/spec, devcontainerId): the SHA-256 of the labels
// as JSON with sorted keys and no spaces, in base 32 with the digits 0-9a-v.
func devcontainerID(folder, config string) schema.DevcontainerID {
	var labels strings.Builder
	enc := json.NewEncoder(&labels)
	enc.SetEscapeHTML(false) // JSON.stringify escapes no & or <
	// Maps are written sorted; strings can be encoded.
	enc.Encode(map[string]string{"devcontainer.local_folder": folder, "devcontainer.config_file": config})
	sum := sha256.Sum256([]byte(strings.TrimSuffix(labels.String(), "\n")))
	id := new(big.Int).SetBytes(sum[:]).Text(32)
	return schema.DevcontainerID(strings.Repeat("0", 52-len(id)) + id)
}
