package rundir

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/keyhatch/keyhatch/schema"
)

// A devcontainerIndex contains the dev container IDs whose links lead or led to the directory of a
// project, by the target of the link. The broker can serve many projects at its start, so it reads
// the directory of the links only once. Later, only the broker adds links.
type devcontainerIndex struct {
	mu       sync.Mutex
	byTarget map[string][]schema.DevcontainerID // guarded by mu; nil until the directory was read
}

// others returns the IDs whose links lead to target, but which are not in ids. It adds ids to the
// index. dir is the directory of the links.
func (x *devcontainerIndex) others(dir, target string, ids []schema.DevcontainerID) (others []schema.DevcontainerID, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byTarget == nil {
		if x.byTarget, err = readDevcontainerLinks(dir); err != nil {
			return nil, err
		}
	}
	for _, id := range x.byTarget[target] {
		// The link can be reserved already, and the operator can remove a link.
		current, err := os.Readlink(filepath.Join(dir, string(id)))
		if err == nil && current == target && !slices.Contains(ids, id) {
			others = append(others, id)
		}
	}
	for _, id := range ids {
		if !slices.Contains(x.byTarget[target], id) {
			x.byTarget[target] = append(x.byTarget[target], id)
		}
	}
	return others, nil
}

// readDevcontainerLinks returns the names of the links in a directory, by target.
func readDevcontainerLinks(dir string) (byTarget map[string][]schema.DevcontainerID, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	byTarget = map[string][]schema.DevcontainerID{}
	for _, entry := range entries {
		if entry.Type()&fs.ModeSymlink == 0 {
			continue // a directory that a container engine created
		}
		if target, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil {
			byTarget[target] = append(byTarget[target], schema.DevcontainerID(entry.Name()))
		}
	}
	return byTarget, nil
}
