package broker

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// tokenDigits is the number of hexadecimal digits of an admin token, which has 32 bytes.
const tokenDigits = 64

// A tokenFile is the file that contains the admin token. The broker keeps the file open and
// locked, so that no other broker replaces it.
type tokenFile struct {
	path string
	file *os.File
}

// createTokenFile generates a token and writes it to the file path, which only root and the user of
// the broker can read. It returns the hash of the token. It replaces an empty file, or the token
// file of a broker that has ended, but no other file, because the operator could have chosen a
// wrong path.
func createTokenFile(path, runtimeDir string) (t *tokenFile, hash [sha256.Size]byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot create the token file: %w", err)
		}
	}()
	if err := checkTokenDir(filepath.Dir(path), runtimeDir); err != nil {
		return nil, hash, err
	}
	old, err := openOldTokenFile(path)
	if err != nil {
		return nil, hash, err
	}
	if old != nil {
		defer old.Close() // keep the old file locked until the new file has replaced it
	}
	removeTemporaryTokens(filepath.Dir(path))
	for attempts := 1; ; attempts++ {
		temporary, err := os.CreateTemp(filepath.Dir(path), temporaryToken+"*")
		if err != nil {
			return nil, hash, shortPathError(err, path)
		}
		hash, err = writeToken(temporary)
		if err == nil {
			err = replaceTokenFile(temporary.Name(), path, old != nil)
		}
		if err == nil {
			return &tokenFile{path, temporary}, hash, nil
		}
		os.Remove(temporary.Name())
		temporary.Close()
		// Try again if another broker, which starts at the same time, has removed the temporary
		// file before this broker could lock the file.
		if wasRemoved := errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EWOULDBLOCK); !wasRemoved || attempts == maxTokenAttempts {
			return nil, hash, err
		}
	}
}

// temporaryToken is the beginning of the name of a file that becomes a token file.
const temporaryToken = ".keyhatch-token-"

// maxTokenAttempts is the largest number of temporary files that createTokenFile creates.
const maxTokenAttempts = 3

// removeTemporaryTokens removes the temporary files that killed brokers of this user left in dir.
// It does not remove a locked file, because the file belongs to a broker that is starting.
func removeTemporaryTokens(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), temporaryToken) {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			continue // for example, path is a link, or a file of another user
		}
		var st unix.Stat_t
		if unix.Fstat(int(file.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Uid == uint32(os.Geteuid()) &&
			unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			os.Remove(path)
		}
		file.Close()
	}
}

// replaceTokenFile renames temporary to path. If exists is false, there was no file at path before,
// and replaceTokenFile fails if there is a file now. Without this check, two brokers that start at
// the same time could replace each other's files.
func replaceTokenFile(temporary, path string, exists bool) error {
	if !exists {
		err := unix.Renameat2(unix.AT_FDCWD, temporary, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
		if err == unix.EEXIST {
			return errTokenFileBusy(path)
		}
		if err != unix.EINVAL && err != unix.ENOSYS { // not every file system supports RENAME_NOREPLACE
			return err
		}
	}
	return os.Rename(temporary, path)
}

func errTokenFileBusy(path string) error {
	return fmt.Errorf("%s belongs to another keyhatchd, which is running: choose another path", path)
}

// checkTokenDir returns an error if dir is the runtime directory or a directory in it, except the
// directory admin. Containers can mount the other directories, and a broker does not start if the
// runtime directory itself contains an unknown file.
func checkTokenDir(dir, runtimeDir string) error {
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err
		}
		return fmt.Errorf("cannot use the directory %s: %w", dir, err)
	}
	if runtimeDir, err = filepath.EvalSymlinks(runtimeDir); err != nil {
		return err
	}
	relative, err := filepath.Rel(runtimeDir, resolved)
	if err != nil {
		return err
	}
	if relative == "admin" || relative == ".." || strings.HasPrefix(relative, "../") {
		return nil
	}
	return fmt.Errorf("the file must not be in %s: choose a file in %s, or outside the runtime directory", resolved, filepath.Join(runtimeDir, "admin"))
}

// openOldTokenFile opens and locks the token file of an earlier broker. It returns nil if there
// is no file. It returns an error if the file is not a token file, or belongs to a running
// broker.
func openOldTokenFile(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	notToken := fmt.Errorf("%s exists and is not a token file: remove it, or choose another path", path)
	if !info.Mode().IsRegular() {
		return nil, notToken
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err = file.Stat(); err != nil { // from here on, info describes the open file
		file.Close()
		return nil, err
	}
	content := make([]byte, tokenDigits+2)
	n, err := io.ReadFull(file, content)
	switch {
	case err != io.EOF && err != io.ErrUnexpectedEOF || n != 0 && !isTokenLine(content[:n]):
		err = notToken
	default:
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		current, statErr := os.Lstat(path)
		if err == unix.EWOULDBLOCK || err == nil && (statErr != nil || !os.SameFile(info, current)) {
			err = errTokenFileBusy(path)
		}
	}
	clear(content)
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func isTokenLine(line []byte) bool {
	if len(line) != tokenDigits+1 || line[tokenDigits] != '\n' {
		return false
	}
	var decoded [tokenDigits / 2]byte
	defer clear(decoded[:])
	_, err := hex.Decode(decoded[:], line[:tokenDigits])
	return err == nil
}

// writeToken writes a new token to the file, and locks the file.
func writeToken(file *os.File) (hash [sha256.Size]byte, err error) {
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return hash, fmt.Errorf("locking %s: %w", file.Name(), err)
	}
	if err := file.Chmod(0o600); err != nil { // a umask can have removed permissions
		return hash, err
	}
	var token [tokenDigits / 2]byte
	var line [tokenDigits + 1]byte
	defer clear(token[:])
	defer clear(line[:])
	rand.Read(token[:]) // crypto/rand.Read never fails
	hex.Encode(line[:], token[:])
	line[tokenDigits] = '\n'
	_, err = file.Write(line[:])
	return sha256.Sum256(line[:tokenDigits]), err
}

// shortPathError replaces the path of the temporary file in an error. The new error contains the
// path of the directory, because the operator does not know the temporary file.
func shortPathError(err error, path string) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return &fs.PathError{Op: "create a file in", Path: filepath.Dir(path), Err: e.Err}
	}
	return err
}

// remove removes the file at t.path if it is still the file of this broker, and then unlocks the
// file.
func (t *tokenFile) remove() {
	own, err := t.file.Stat()
	if err == nil {
		if current, err := os.Lstat(t.path); err == nil && os.SameFile(own, current) {
			os.Remove(t.path)
		}
	}
	t.file.Close()
}
