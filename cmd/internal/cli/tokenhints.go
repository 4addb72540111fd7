package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TokenFileUsage is the help text of the flag --admin-token-file of a client.
const TokenFileUsage = "`FILE` with the token of the broker, if keyhatchd was started with --admin-token-file"

// UnauthorizedHint describes how to send the right admin token. brokerFile is the path that the
// broker has sent as the path of the token file on the broker's host, or "" if the broker did not
// send this path. usedFile is the file in the flag --admin-token-file of this process, or ""
// without this flag.
//
// The process that listens on the socket is possibly not the broker, and can send the path of the
// token file of another broker. So the hint contains a command with brokerFile only if brokerFile
// is in the directory admin of the runtime directory to which the socket belongs.
func UnauthorizedHint(brokerFile, usedFile, socket string) string {
	if !isBesideAdminSocket(brokerFile, socket) || sameFile(brokerFile, usedFile) {
		return "copy the token file from the broker's host after each start of the broker, and use the copy: " + QuoteWords(argsWithTokenFile(usedFile, "COPY"))
	}
	args := argsWithTokenFile(usedFile, brokerFile)
	if unix.Access(brokerFile, unix.R_OK) == nil {
		return "use the broker's token: " + QuoteWords(args)
	}
	owner, _ := VisibleOwner(brokerFile)
	return "use the broker's token: " + rerunAs(owner, socket, args)
}

// isBesideAdminSocket reports whether socket has the path that the broker chooses in its runtime
// directory, and file is a regular file in the same directory.
func isBesideAdminSocket(file, socket string) bool {
	if !filepath.IsAbs(file) || !strings.HasSuffix(socket, AdminSocketSuffix) {
		return false
	}
	socketDir, err := filepath.EvalSymlinks(filepath.Dir(socket))
	if err != nil {
		return false
	}
	fileDir, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil || fileDir != socketDir {
		return false
	}
	info, err := os.Lstat(file)
	return err == nil && info.Mode().IsRegular()
}

// argsWithTokenFile returns the arguments of this process with the flag --admin-token-file file.
// If the arguments already contain this flag, usedFile is its current value. Otherwise usedFile
// is "".
func argsWithTokenFile(usedFile, file string) []string {
	const flag = "--" + TokenFileFlag
	if usedFile == "" {
		return argsWithFlag(os.Args, flag, file)
	}
	args := slices.Clone(os.Args)
	for i, arg := range args {
		switch {
		case arg == flag+"="+usedFile:
			args[i] = flag + "=" + file
		case i > 0 && args[i-1] == flag && arg == usedFile:
			args[i] = file
		}
	}
	return args
}

func sameFile(one, two string) bool {
	absolute, err := filepath.Abs(two)
	return err == nil && one == absolute
}

// TokenFileHint returns the hint for err, the error that this process got when it read file. The
// user chose this file with --admin-token-file.
func TokenFileHint(err error, file, socket string) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		owner, _ := VisibleOwner(file)
		return RerunAs(owner, socket)
	case errors.Is(err, fs.ErrNotExist):
		if absolute, err := filepath.Abs(file); err == nil {
			file = absolute
		}
		return "correct --admin-token-file, or start the broker with: keyhatchd --admin-token-file " + ShellQuote(file)
	}
	return "use the file that keyhatchd --admin-token-file has created, or a copy of this file"
}

// UntrustedListenerHint returns the hint for a socket on which a process of another user listens.
// uid is the uid of this user. The process must not get the token.
func UntrustedListenerHint(uid uint32) string {
	if uid == schema.UnmappedUID {
		return "run this command outside its user namespace, where the kernel can report which user listens on the socket"
	}
	return fmt.Sprintf("use a socket in a directory that only you can write, or, if you trust uid %d, run this command as that user", uid)
}

// UnusedTokenHint is the hint for a user who has set --admin-token-file although the broker does
// not use a token.
func UnusedTokenHint(file string) string {
	return "start keyhatchd with --admin-token-file " + ShellQuote(file) + ", or omit this flag here"
}
