package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// directory finds out what a project's directory really is, and its name.
func directory(arg string) (path string, name schema.ProjectName, err error) {
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

// approved reads the manifest that is about to be approved. It is checked here
// too, because here there is a file to name.
func approved(dir string, name schema.ProjectName) (string, error) {
	text, file, err := manifest.Read(dir)
	if errors.Is(err, manifest.ErrNotFound) {
		return "", &cli.Failure{Err: fmt.Errorf("%s: %w", dir, err),
			Hint: "write it: schema_version: 1, project: " + string(name) + ", and secrets: with the names that it may fetch"}
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	if _, err := manifest.Parse(text, name); err != nil {
		return "", &cli.Failure{Err: fmt.Errorf("%s: %w", filepath.Join(dir, file), err), Hint: "mend the manifest and try again; nothing was changed"}
	}
	return string(text), nil
}

func registerCommand(o *operator) *cobra.Command {
	var uids []uint
	var persists bool
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
			request, err := registration(args[0], uids)
			if err != nil {
				return err
			}
			return o.with(c.Context(), func(admin *client.Admin) error {
				register := admin.Register
				if persists {
					register = func(ctx context.Context, request schema.RegisterRequest) (schema.RegisterResponse, error) {
						return persist(ctx, admin, request)
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
	c.Flags().BoolVar(&persists, "persist", false, "declare the project, for every start of the broker")
	return c
}

// registration is what registers the project in the directory arg.
func registration(arg string, uids []uint) (schema.RegisterRequest, error) {
	path, name, err := directory(arg)
	if err != nil {
		return schema.RegisterRequest{}, err
	}
	text, err := approved(path, name)
	if err != nil {
		return schema.RegisterRequest{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return schema.RegisterRequest{}, err
	}
	// A confined broker may be unable to look at the directory itself.
	allow := []uint32{info.Sys().(*syscall.Stat_t).Uid}
	for _, uid := range uids {
		if uint(uint32(uid)) != uid {
			return schema.RegisterRequest{}, cli.Usage("--allow-uid: %d is no uid", uid)
		}
		allow = append(allow, uint32(uid))
	}
	ids, err := devcontainerIDs(arg, path)
	if err != nil {
		return schema.RegisterRequest{}, err
	}
	return schema.RegisterRequest{Name: name, ProjectPath: path, Manifest: &text, AllowUIDs: allow, DevcontainerIDs: ids}, nil
}

// named turns NAME or DIR into a registered project.
func named(ctx context.Context, admin *client.Admin, arg string) (schema.ProjectStatus, error) {
	status, err := admin.Status(ctx)
	if err != nil {
		return schema.ProjectStatus{}, err
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		return schema.ProjectStatus{}, err
	}
	// A directory that is gone can still be unregistered by its path.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	for _, is := range []func(schema.ProjectStatus) bool{
		func(p schema.ProjectStatus) bool { return string(p.Name) == arg },
		func(p schema.ProjectStatus) bool { return p.ProjectPath == path },
	} {
		if i := slices.IndexFunc(status.Projects, is); i >= 0 {
			return status.Projects[i], nil
		}
	}
	return schema.ProjectStatus{}, &cli.Failure{
		Err: fmt.Errorf("no registered project is %q", arg), Hint: "keyhatchctl projects lists those that are registered",
	}
}

func unregisterCommand(o *operator) *cobra.Command {
	var persists bool
	c := &cobra.Command{
		Use:   "unregister NAME|DIR",
		Short: "Take a project offline and end its connections",
		Example: `  keyhatchctl unregister api
  sudo keyhatchctl unregister --persist ~/src/api    # it is not declared any more either`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return o.with(c.Context(), func(admin *client.Admin) error {
				p, err := named(c.Context(), admin, args[0])
				if err != nil {
					return err
				}
				if persists { // first: it is what may fail for want of permission
					if err := undeclare(c.Context(), admin, p.Name); err != nil {
						return err
					}
				}
				if err := admin.Unregister(c.Context(), p.Name); err != nil {
					return err
				}
				if p.Declared && !persists {
					fmt.Fprintf(c.ErrOrStderr(), "%s is declared, and comes back at the broker's next start: --persist removes that too\n", p.Name)
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), schema.OKResponse{OK: true})
				}
				fmt.Fprintf(c.OutOrStdout(), "%s is no longer served\n", p.Name)
				return nil
			})
		},
	}
	c.Flags().BoolVar(&persists, "persist", false, "remove its declaration too")
	return c
}

func reloadCommand(o *operator) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "reload NAME|DIR",
		Short: "Approve a project's changed manifest",
		Long: `reload reads the project's manifest, shows what it would change, and asks. What is
shown is what is approved, whatever happens to the file meanwhile. A declared
project's declaration is changed with it.`,
		Example: `  keyhatchctl reload api
  keyhatchctl reload --yes ~/src/api    # in a script`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			asks := term.IsTerminal(int(os.Stdin.Fd()))
			if !yes && !asks {
				return cli.Usage("there is no terminal to ask on: say --yes to approve what changes")
			}
			return o.reload(c, args[0], !yes)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// reload connects twice: the broker ends a connection that says nothing while
// its operator thinks. The text is read once, so that what was shown is sent.
func (o *operator) reload(c *cobra.Command, arg string, ask bool) error {
	var request schema.ReloadRequest
	var change schema.ReloadResponse
	declared := false
	err := o.with(c.Context(), func(admin *client.Admin) error {
		p, err := named(c.Context(), admin, arg)
		if err != nil {
			return err
		}
		text, err := approved(p.ProjectPath, p.Name)
		if err != nil {
			return err
		}
		declared = p.Declared
		request = schema.ReloadRequest{Name: p.Name, Manifest: &text, DryRun: true}
		change, err = admin.Reload(c.Context(), request)
		return err
	})
	if err != nil {
		return err
	}
	if ask {
		printChange(c.ErrOrStderr(), request.Name, change)
		if err := confirm(c.ErrOrStderr()); err != nil {
			return err
		}
	}
	request.DryRun = false
	return o.with(c.Context(), func(admin *client.Admin) error {
		if declared {
			if err := redeclare(c.Context(), admin, request.Name, *request.Manifest); err != nil {
				return err
			}
		}
		change, err := admin.Reload(c.Context(), request)
		if err != nil {
			return err
		}
		if o.asJSON {
			return cli.PrintJSON(c.OutOrStdout(), change)
		}
		if !ask {
			printChange(c.OutOrStdout(), request.Name, change)
		}
		fmt.Fprintf(c.OutOrStdout(), "%s may fetch %s\n", request.Name, cli.Count(len(change.Allowlist), "secret"))
		return nil
	})
}

// confirm asks on the terminal. Nothing is under way meanwhile, so a signal
// ends the process at once: a read of a terminal would not notice a context.
func confirm(w io.Writer) error {
	signal.Reset(os.Interrupt, syscall.SIGTERM)
	fmt.Fprint(w, "approve? [y/N] ")
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	if reply := strings.ToLower(strings.TrimSpace(line)); reply != "y" && reply != "yes" {
		return errors.New("not approved; nothing was changed")
	}
	return nil
}

func printChange(w io.Writer, name schema.ProjectName, change schema.ReloadResponse) {
	if len(change.Added)+len(change.Removed) == 0 {
		fmt.Fprintf(w, "%s: the same secrets as before\n", name)
	}
	for _, secret := range change.Added {
		fmt.Fprintf(w, "+ %s\n", secret)
	}
	for _, secret := range change.Removed {
		fmt.Fprintf(w, "- %s\n", secret)
	}
}
