package main

import (
	"fmt"

	"github.com/keyhatch/keyhatch/schema"
)

// registerOptions are the flags of register and up that choose parts of a registration.
type registerOptions struct {
	name    string // "" for the name that the project has, or that its manifest contains
	uids    []uint // the uids in the flags --allow-uid, in addition to the uids that the project has
	persist bool
}

// flags returns the command-line flags that set these options.
func (options registerOptions) flags() (flags []string) {
	if options.name != "" {
		flags = append(flags, "--name", options.name)
	}
	for _, uid := range options.uids {
		flags = append(flags, "--allow-uid", fmt.Sprint(uid))
	}
	if options.persist {
		flags = append(flags, "--persist")
	}
	return flags
}

// registerCommand returns the keyhatchctl command that registers the project at path with the
// given options and extraFlags. If the command needs sudo to write the declaration, it begins
// with sudo.
func (o *globalOptions) registerCommand(path string, options registerOptions, status schema.StatusResponse, extraFlags ...string) string {
	args := append([]string{"register"}, append(extraFlags, options.flags()...)...)
	return o.sudoCommand(sudoToDeclare(options.persist, status), append(args, path)...)
}

// sudoToDeclare returns "sudo " if the project is declared, or will be declared, and this user
// cannot change the declarations. Otherwise it returns "".
func sudoToDeclare(isDeclared bool, status schema.StatusResponse) string {
	if isDeclared {
		return sudoToChange(status.ProjectsDir)
	}
	return ""
}
