package main

import "github.com/keyhatch/keyhatch/cmd/internal/cli"

// globalOptions are the flags of all commands.
type globalOptions struct {
	socket string
	asJSON bool
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
// same admin socket as this process.
func (o *globalOptions) command(args ...string) string {
	if o.socket != "" {
		args = append([]string{"--socket", o.socket}, args...)
	}
	text := "keyhatchctl"
	for _, arg := range args {
		text += " " + cli.ShellQuote(arg)
	}
	return text
}

// sudoCommand returns a command like command. sudo is "sudo " or "". With sudo, the command
// contains the socket, because the default socket of root is the system's socket.
func (o *globalOptions) sudoCommand(sudo string, args ...string) string {
	if socket := o.adminSocket(); sudo != "" && socket != cli.SystemSocket {
		o = &globalOptions{socket: socket}
	}
	return sudo + o.command(args...)
}
