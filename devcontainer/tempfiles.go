package devcontainer

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// tempPrefix is the beginning of the names of temporary files, which can contain secrets.
const tempPrefix = ".new-"

// lockTempFiles must be called before a temporary file is created in a directory. It removes the temporary
// files of killed processes from this directory. unlock must be called after the last temporary file is renamed or removed.
//
// Each process that has temporary files has a shared lock. If lockTempFiles gets an exclusive lock, all
// temporary files therefore belong to processes that have ended.
func lockTempFiles(dirPath string) (unlock func(), err error) {
	dir, err := os.Open(dirPath)
	if err != nil {
		return nil, err
	}
	if unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		leftovers, _ := filepath.Glob(filepath.Join(dirPath, tempPrefix+"*"))
		for _, path := range leftovers {
			os.Remove(path)
		}
	}
	for {
		if err = unix.Flock(int(dir.Fd()), unix.LOCK_SH); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return func() { dir.Close() }, nil
}
