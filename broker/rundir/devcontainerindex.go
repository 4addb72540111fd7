package rundir

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/keyhatch/keyhatch/schema"
)

// A devcontainerIndex stores which dev container IDs have links to the directory of a project, or
// had such links earlier. Many projects can need the index when the broker starts. So the broker
// reads the directory of the links only once, and then updates the index itself: no other process
// is expected to add links.
type devcontainerIndex struct {
	mu       sync.Mutex
	byTarget map[string][]schema.DevcontainerID // guarded by mu; the keys are targets of links; nil until the directory was read
}

// others returns the IDs whose links lead to target, but which are not in ids. It adds ids to the
// index as links to target. dir is the directory of the links. others returns an error if it
// cannot read this directory.
func (x *devcontainerIndex) others(dir, target string, ids []schema.DevcontainerID) (others []schema.DevcontainerID, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byTarget == nil {
		if x.byTarget, err = readDevcontainerLinks(dir); err != nil {
			return nil, err
		}
	}
	for _, id := range x.byTarget[target] {
		// The index can contain a link that does not lead to target any more, because Link has
		// reserved its ID or the operator has removed the link.
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
			continue // not a link: a container engine can create a directory here
		}
		if target, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil {
			byTarget[target] = append(byTarget[target], schema.DevcontainerID(entry.Name()))
		}
	}
	return byTarget, nil
}
