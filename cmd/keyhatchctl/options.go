package main

import (
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
)

// globalOptions are the flags that every command of keyhatchctl has.
type globalOptions struct {
	socket    string
	tokenFile string
	asJSON    bool
}

const correctManifestHint = "correct the manifest and try again; keyhatchctl did not change anything"

func (o *globalOptions) listProjectsHint() string {
	return "list the registered projects: " + o.command("projects")
}

// adminSocket returns the path of the admin socket, or "" if the path is unknown.
func (o *globalOptions) adminSocket() string {
	if o.socket != "" {
		return o.socket
	}
	return cli.DefaultAdminSocket()
}

// command returns a keyhatchctl command that can be pasted into a shell. The command uses the
// same admin socket and token file as this process.
func (o *globalOptions) command(args ...string) string { return o.sudoCommand("", args...) }

// sudoCommand is like command, but begins the keyhatchctl command with sudo, which is "sudo " or
// "". With "sudo ", the command contains --socket if the socket is not the socket of the system,
// which is the default of root. If a word ends with a line break, sudoCommand returns a text
// instead of a command, because ShellQuote cannot quote the word.
func (o *globalOptions) sudoCommand(sudo string, args ...string) string {
	if slices.ContainsFunc(args, func(arg string) bool { return strings.HasSuffix(arg, "\n") }) {
		return "rename the directory, because its name ends with a line break"
	}
	socket := o.socket
	if sudo != "" && o.adminSocket() != cli.SystemSocket {
		socket = o.adminSocket()
	}
	words := []string{"keyhatchctl"}
	if socket != "" {
		words = append(words, "--socket", socket)
	}
	if o.tokenFile != "" {
		words = append(words, "--admin-token-file", o.tokenFile)
	}
	return sudo + cli.QuoteWords(append(words, args...))
}
