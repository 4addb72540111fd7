package main

import (
	"context"
	"fmt"
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
		Short: "Bring a project online, with its manifest as it is now",
		Long: `register approves the manifest in DIR as it is now and makes the project's socket.
The project is named by its directory. Its owner, root and the broker may use
the socket; --allow-uid adds others, such as a container's user.

--persist also writes what was approved into the broker's projects directory, so
that the project is served after a stop of the broker and after a reboot too.`,
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
				fmt.Fprintf(c.OutOrStdout(), "%s is served at %s\nmount %s into its container at /run/keyhatch\n",
					request.Name, answer.SocketPath, filepath.Dir(answer.SocketPath))
				return nil
			})
		},
	}
	c.Flags().UintSliceVar(&uids, "allow-uid", nil, "a uid that may use the socket too")
	c.Flags().BoolVar(&persist, "persist", false, "declare the project, for every start of the broker")
	return c
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
	// A confined broker may be unable to look at the directory itself.
	allowedUIDs := []uint32{info.Sys().(*syscall.Stat_t).Uid}
	for _, uid := range uids {
		if uint(uint32(uid)) != uid {
			return schema.RegisterRequest{}, cli.UsageErrorf("--allow-uid: %d is no uid", uid)
		}
		allowedUIDs = append(allowedUIDs, uint32(uid))
	}
	ids, err := devcontainerIDs(dirArg, path)
	if err != nil {
		return schema.RegisterRequest{}, err
	}
	return schema.RegisterRequest{Name: name, ProjectPath: path, Manifest: &text, AllowUIDs: allowedUIDs, DevcontainerIDs: ids}, nil
}

// resolveProjectDir resolves the symbolic links in a project's directory, and
// returns the project's name too.
func resolveProjectDir(arg string) (path string, name schema.ProjectName, err error) {
	if path, err = filepath.Abs(arg); err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", "", err
	}
	base := filepath.Base(path)
	if !schema.ValidProjectName(base) {
		return "", "", fmt.Errorf("the directory's name %q is the project's, and does not match %s", base, schema.ProjectNamePattern)
	}
	return path, schema.ProjectName(base), nil
}
