package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func registerCommand(o *globalOptions) *cobra.Command {
	var uids []uint
	var persist bool
	c := &cobra.Command{
		Use:   "register DIR",
		Short: "Register a project and approve its current manifest",
		Long: `register approves the current manifest of the project in DIR and creates the
project's socket. The name of the project is the base name of DIR.

Root, the broker's user, and the owner of DIR can use the socket. To allow another
user, for example the container's user, add --allow-uid.

With --persist, the broker registers the project again after a stop or a reboot.
The approved manifest is then stored in the broker's projects directory.`,
		Example: `  keyhatchctl register ~/src/api
  sudo keyhatchctl register --persist ~/src/api
  keyhatchctl register ~/src/api --allow-uid 1000`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			request, err := newRegisterRequest(args[0], uids)
			if err != nil {
				return err
			}
			return o.withAdmin(c.Context(), func(admin *client.Admin) error {
				register := admin.Register
				if persist {
					register = func(ctx context.Context, request schema.RegisterRequest) (schema.RegisterResponse, error) {
						return declareAndRegister(ctx, admin, request)
					}
				}
				answer, err := register(c.Context(), request)
				if err != nil {
					return err
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), answer)
				}
				fmt.Fprintf(c.OutOrStdout(), "registered %s: its socket is %s\nmount %s at /run/keyhatch in the project's container\n",
					request.Name, answer.SocketPath, filepath.Dir(answer.SocketPath))
				return nil
			})
		},
	}
	addUIDFlag(c, &uids, "additional `UID` that can use the socket; can be repeated")
	c.Flags().BoolVar(&persist, "persist", false, "declare the project, so that the broker registers it at every start")
	return c
}

// addUIDFlag adds --allow-uid. Its help must not show [] as the default value.
func addUIDFlag(c *cobra.Command, uids *[]uint, usage string) {
	c.Flags().UintSliceVar(uids, "allow-uid", nil, usage)
	c.Flags().Lookup("allow-uid").DefValue = ""
}

// newRegisterRequest returns the request that registers the project in dirArg.
func newRegisterRequest(dirArg string, uids []uint) (schema.RegisterRequest, error) {
	path, name, err := resolveProjectDir(dirArg)
	if err != nil {
		return schema.RegisterRequest{}, err
	}
	text, err := readManifest(path, name)
	if err != nil {
		return schema.RegisterRequest{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return schema.RegisterRequest{}, err
	}
	// A confined broker may not have access to the directory, so the owner is sent.
	allowedUIDs := []uint32{info.Sys().(*syscall.Stat_t).Uid}
	for _, uid := range uids {
		if uint(uint32(uid)) != uid {
			return schema.RegisterRequest{}, cli.UsageErrorf("--allow-uid: %d is not a valid uid: the maximum is 4294967295", uid)
		}
		allowedUIDs = append(allowedUIDs, uint32(uid))
	}
	ids, err := devcontainerIDs(dirArg, path)
	if err != nil {
		return schema.RegisterRequest{}, err
	}
	return schema.RegisterRequest{Name: name, ProjectPath: path, Manifest: &text, AllowUIDs: allowedUIDs, DevcontainerIDs: ids}, nil
}

// resolveProjectDir returns the absolute path of a project's directory without
// symbolic links, and the project's name.
func resolveProjectDir(arg string) (path string, name schema.ProjectName, err error) {
	if path, err = filepath.Abs(arg); err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	if err != nil {
		return "", "", fmt.Errorf("cannot open the project's directory: %s: %w", arg, err)
	}
	base := filepath.Base(path)
	if !schema.ValidProjectName(base) {
		return "", "", fmt.Errorf("invalid project name %q: the base name of the directory must match %s", base, schema.ProjectNamePattern)
	}
	return path, schema.ProjectName(base), nil
}
