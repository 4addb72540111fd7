package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// TokenFileUsage is the help text of the flag --admin-token-file of a client.
const TokenFileUsage = "`FILE` with the token of the broker, if keyhatchd was started with --admin-token-file"

// UnauthorizedHint describes how to send the right admin token. brokerFile is the path of the
// token file on the broker's host, or "" if the broker did not send this path. usedFile is the
// file in the flag --admin-token-file of this process, or "" without this flag.
func UnauthorizedHint(brokerFile, usedFile, socket string) string {
	if brokerFile == "" || !fileExists(brokerFile) || sameFile(brokerFile, usedFile) {
		return "copy the token file from the broker's host after each start of the broker, and use the copy: " + QuoteWords(argsWithTokenFile(usedFile, "COPY"))
	}
	args := argsWithTokenFile(usedFile, brokerFile)
	if unix.Access(brokerFile, unix.R_OK) == nil {
		return "use the broker's token: " + QuoteWords(args)
	}
	owner, _ := VisibleOwner(brokerFile)
	return "use the broker's token: " + rerunAs(owner, socket, args)
}

// argsWithTokenFile returns the arguments of this process with the flag --admin-token-file file.
// If the arguments already contain this flag, usedFile is its current value. Otherwise usedFile
// is "".
func argsWithTokenFile(usedFile, file string) []string {
	if usedFile == "" {
		return argsWithFlag(os.Args, "--admin-token-file", file)
	}
	args := []string{os.Args[0]}
	for _, arg := range os.Args[1:] {
		if arg == usedFile || strings.HasSuffix(arg, "="+usedFile) {
			arg = strings.TrimSuffix(arg, usedFile) + file
		}
		args = append(args, arg)
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

// UnusedTokenHint is the hint for a user who has set --admin-token-file although the broker does
// not use a token.
func UnusedTokenHint(file string) string {
	return "start keyhatchd with --admin-token-file " + ShellQuote(file) + ", or omit this flag here"
}
