package sidecar

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/keyhatch/keyhatch/sidecar/store"
)

// unusableMessage returns the log message for a file, a value, or a store that the sidecar cannot
// use. The broker keeps an old value only if the sidecar has read this value since the sidecar has
// started, because each push replaces all secrets.
func unusableMessage(reason store.Reason) string {
	switch {
	case reason == store.ReasonName:
		return "the sidecar ignores a file or directory of the store, because its name cannot be the name of a secret"
	case reason == store.ReasonDuplicate:
		return "a secret is in two stores; if the sidecar has read the secret before, the broker keeps the old value"
	case reason.IsReplacedBundle():
		return "the directory of a bundle was replaced, and fields are missing; the broker keeps the old bundle"
	case reason.IsReplacedStore():
		return "one of the stores was replaced, and secrets are missing; the broker keeps the old secrets of this store"
	case reason.IsStoreFailure():
		return "the sidecar cannot read one of its stores; the broker keeps the old secrets of this store"
	case reason == store.ReasonEmptyValue:
		return "a value in the store is empty; if the sidecar has read the secret before, the broker keeps the old value"
	case reason.IsIncomplete():
		return "a file of the store is not complete; if the sidecar has read the secret before, the broker keeps the old value"
	}
	return "the sidecar cannot use a file or directory of the store; if the sidecar has read the secret before, the broker keeps the old value"
}

// hintForReason describes how the owner can end a problem in State.Unusable. path is the key of the
// problem. If the file has just changed, hintForReason returns "", because the file will probably
// become usable soon.
func hintForReason(reason store.Reason, path string) string {
	switch reason {
	case store.ReasonOpen:
		return "to find the process, run fuser -v " + quotePath(path)
	case store.ReasonEmpty:
		return "write the value to the file; to remove the secret, delete the file; to store an empty value, write only a newline to the file, or use keyhatch-sidecar set --allow-empty"
	case store.ReasonEmptyValue:
		return "write the value; to remove the secret, remove its name from the store; to store an empty secret, use a dir: store and keyhatch-sidecar set --allow-empty"
	case store.ReasonName:
		return "if the file contains a secret, rename the file; otherwise move the file out of the store, or rename the file so that its name starts with a dot"
	case store.ReasonPermission:
		return "give the user of the sidecar process permission to read the file or directory, for example with chown or chmod; to remove the secret, delete the file or directory"
	}
	switch {
	case reason == store.ReasonDuplicate:
		return "remove the secret from one of the two stores; store 1 is the store of the first flag --store"
	case reason.IsReplaced():
		return confirmHint(os.Getpid())
	case reason.IsUnstableStore():
		return "stop the program that changes the store all the time"
	case reason.IsStoreFailure():
		return "correct the store; if you do not need the store, remove its flag --store and restart the sidecar"
	case reason.IsTemporary():
		return ""
	}
	return "replace the file or directory at this path with a file that the sidecar can use; to remove the secret, delete the file or directory"
}

// quotePath quotes a path for a shell.
func quotePath(path string) string { return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'" }

// LeftoverWarning is the warning about a temporary file that a killed edit has left in the store.
const LeftoverWarning = "the store contains a temporary file of a killed edit, and this file can contain a secret"

// LeftoverHint describes how the owner can remove the temporary file or directory at path. The sidecar
// does not remove a directory that contains mounts, or files that are not fields.
func LeftoverHint(path string) string {
	return "to see what it contains, run ls -lAR " + quotePath(path) + "; if something is mounted there, unmount it; move other files away, and delete the rest"
}

// BackupWarning is the warning about a file whose name looks like the name of a backup. BackupHint is the
// hint for BackupWarning.
const (
	BackupWarning = "a file of the store looks like a backup, but its name can be the name of a secret or a field, so the sidecar pushes it"
	BackupHint    = "if the file is a backup, move the file out of the store, or rename the file so that its name starts with a dot"
)

// confirmHint describes what the owner can do if secrets are missing in the store. pid is the pid
// of the sidecar, or 0 if it is unknown.
func confirmHint(pid int) string {
	command := "send the signal SIGUSR1 to the sidecar"
	if pid != 0 {
		command = fmt.Sprint("run kill -USR1 ", pid)
	}
	return "mount or restore the store; if the missing secrets should be removed from the broker, " + command
}

// hintFor returns a hint if the store does not exist, is not a directory, or is too large, if the
// sidecar has no permission to read the store, or if the command of an exec: store failed. For all
// other errors, hintFor returns "", because an error of package store already contains the rule that
// the store violates.
func hintFor(err error) string {
	switch {
	case errors.Is(err, store.ErrCommand):
		return "the sidecar shows the command's standard error only on a terminal; to see the standard error, run keyhatch-sidecar health on a terminal, with the same --store, --format, and --timeout"
	case errors.Is(err, store.ErrTooLarge):
		return "remove or shorten secrets; until then, the broker also keeps secrets that you remove from the store; to remove all secrets from the broker now, run keyhatchctl clear"
	case errors.Is(err, syscall.ENOTDIR):
		return "if the store is a dotenv, JSON, or YAML file, use --store file:PATH"
	case errors.Is(err, fs.ErrNotExist):
		return "create or mount the store, or correct --store; the sidecar finds a new store without a restart"
	case errors.Is(err, fs.ErrPermission):
		return "give the user of the sidecar process permission to read the store, for example with chown or chmod"
	}
	return ""
}
