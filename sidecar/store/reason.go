package store

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/keyhatch/keyhatch/schema"
)

// A Reason is the reason why Read cannot use a file, a value, or a store of a Merged. Other reasons
// than the constants are possible, for example the text of an error of the system.
type Reason string

// The reasons why a file is not complete. An empty file stays incomplete until it changes. In
// all other cases, the file can become complete without a file event.
const (
	// ReasonEmpty is necessary because many programs truncate a file before they write the
	// file, and because a program can fail after it has truncated the file.
	ReasonEmpty   Reason = "the file is empty"
	ReasonOpen    Reason = "a process has the file open for writing"
	reasonChanged Reason = "the file has just changed, and its file system does not report whether a process has the file open for writing"
	reasonShorter Reason = "the file has just become shorter, so it may not be complete"
)

// The reasons why Read cannot use a file until the owner changes the store.
const (
	// ReasonName means that Read ignores the path. With each other reason, Read uses the old value of
	// the secret.
	ReasonName Reason = "the name does not match " + schema.SecretNamePattern
	// ReasonEmptyValue means that a File or the output of an Exec contains an empty value. For an empty
	// file of a Dir, the reason is ReasonEmpty.
	ReasonEmptyValue Reason = "the value is empty"
	// ReasonDuplicate means that two stores of a Merged contain a secret with the same name.
	ReasonDuplicate  Reason = "the secret is in two stores"
	ReasonPermission Reason = "permission denied" // the text of EACCES
	reasonDangling   Reason = "the target of the symbolic link does not exist"
	reasonKind       Reason = "the path is not a regular file or a directory"
	// reasonWrongSize means that the file has another number of bytes than its size, although
	// the file did not change. Many files of procfs and sysfs are like this.
	reasonWrongSize   Reason = "the number of bytes in the file is different from its size, as in /proc and /sys"
	reasonDirInBundle Reason = "a bundle must contain only files, but this is a directory"
	// reasonReplacedBundle means that the directory of a bundle is not the directory that was read
	// before, and that fields are missing. The usual reason is that a file system was mounted or unmounted.
	reasonReplacedBundle Reason = "another directory has replaced the directory of the bundle, and does not contain all fields of the old directory"
	reasonBinaryField    Reason = "a field of a bundle must be valid UTF-8: store the binary value as a separate secret"
)

// reasonTooLarge does not contain the size of the file, so that a growing file is logged only
// once.
var reasonTooLarge = Reason(fmt.Sprintf("the file is too large: the maximum size of a push is %d bytes", schema.MaxPush))

// If Read cannot read a store of a Merged, the reason begins with storeFailed or, for ErrUnstable, with
// storeUnstable.
const (
	storeFailed   = "cannot read this store: "
	storeUnstable = "cannot read this store at the moment: "
)

// IsStoreFailure reports whether the reason concerns a complete store of a Merged.
func (r Reason) IsStoreFailure() bool {
	return strings.HasPrefix(string(r), storeFailed) || r.IsUnstableStore()
}

// IsUnstableStore reports whether the read of a store of a Merged failed with ErrUnstable.
func (r Reason) IsUnstableStore() bool { return strings.HasPrefix(string(r), storeUnstable) }

// IsReplacedStore reports whether the read of a store of a Merged failed with ErrReplaced.
func (r Reason) IsReplacedStore() bool {
	return r.IsStoreFailure() && strings.HasSuffix(string(r), ErrReplaced.Error())
}

// IsReplacedBundle reports whether the directory of a bundle was replaced and fields are missing.
func (r Reason) IsReplacedBundle() bool { return r == reasonReplacedBundle }

// IsReplaced reports whether a store of a Merged or the directory of a bundle was replaced. The owner
// can confirm the replacement.
func (r Reason) IsReplaced() bool { return r.IsReplacedStore() || r.IsReplacedBundle() }

// IsIncomplete reports whether the file is empty, or whether the reason is temporary.
func (r Reason) IsIncomplete() bool { return r == ReasonEmpty || r.IsTemporary() }

// IsTemporary reports whether the problem can end without a file event, so that the sidecar must read
// the store again.
func (r Reason) IsTemporary() bool {
	return r == ReasonOpen || r == reasonChanged || r == reasonShorter || r.IsUnstableStore()
}

// reasonOf returns the reason for an error of readFile or of package os.
func reasonOf(err error) Reason {
	if unusable, ok := errors.AsType[*unusableError](err); ok {
		return unusable.reason
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return Reason(errno.Error())
	}
	return Reason(err.Error())
}

// ErrUnstable means that a later Read can succeed without a change of the store. Either the
// files of the store changed during every attempt to read them, or a program was still writing a
// file for which there is no old value.
var ErrUnstable = errors.New("the files changed during every attempt to read them")

// ErrReplaced is the error that Read returns if the directory of a Dir was replaced by another
// directory in which secrets are missing. The usual reason is that a file system was mounted or
// unmounted. If files of the same directory are removed, Read returns no error.
var ErrReplaced = errors.New("another directory has replaced the directory that was read before, and does not contain all secrets of the old directory")

// An unusableError means that Read cannot use a file, and that there is no old value.
type unusableError struct {
	path   string
	reason Reason
}

func (e *unusableError) Error() string { return fmt.Sprintf("%s: %s", e.path, e.reason) }

func (e *unusableError) Unwrap() error {
	switch {
	case e.reason.IsTemporary():
		return ErrUnstable
	case e.reason == ReasonPermission:
		return fs.ErrPermission
	}
	return nil
}
