package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	c := &cobra.Command{
		Use:   "register DIR",
		Short: "Bring a project online, with its manifest as it is now",
		Long: `register approves the manifest in DIR as it is now and makes the project's socket.
The project is named by its directory. Its owner, root and the broker may use
the socket; --allow-uid adds others, such as a container's user.`,
		Example: `  keyhatchctl register ~/src/api
  keyhatchctl register ~/src/api --allow-uid 1000`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path, name, err := directory(args[0])
			if err != nil {
				return err
			}
			text, err := approved(path, name)
			if err != nil {
				return err
			}
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			// A confined broker may be unable to look at the directory itself.
			allow := []uint32{info.Sys().(*syscall.Stat_t).Uid}
			for _, uid := range uids {
				if uint(uint32(uid)) != uid {
					return cli.Usage("--allow-uid: %d is no uid", uid)
				}
				allow = append(allow, uint32(uid))
			}
			return o.with(c.Context(), func(admin *client.Admin) error {
				answer, err := admin.Register(c.Context(), schema.RegisterRequest{Name: name, ProjectPath: path, Manifest: &text, AllowUIDs: allow})
				if err != nil {
					return err
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), answer)
				}
				fmt.Fprintf(c.OutOrStdout(), "%s is served at %s\nmount %s into its container at /run/keyhatch\n",
					name, answer.SocketPath, filepath.Dir(answer.SocketPath))
				return nil
			})
		},
	}
	c.Flags().UintSliceVar(&uids, "allow-uid", nil, "a uid that may use the socket too")
	return c
}

// named turns NAME or DIR into a registered project.
func named(ctx context.Context, admin *client.Admin, arg string) (schema.ProjectStatus, error) {
	status, err := admin.Status(ctx)
	if err != nil {
		return schema.ProjectStatus{}, err
	}
	path := ""
	if strings.ContainsRune(arg, filepath.Separator) || arg == "." || arg == ".." {
		if path, _, err = directory(arg); err != nil {
			return schema.ProjectStatus{}, err
		}
	}
	for _, p := range status.Projects {
		if string(p.Name) == arg || (path != "" && p.ProjectPath == path) {
			return p, nil
		}
	}
	return schema.ProjectStatus{}, &cli.Failure{
		Err: fmt.Errorf("no registered project is %s", arg), Hint: "keyhatchctl projects lists those that are registered",
	}
}

func unregisterCommand(o *operator) *cobra.Command {
	return &cobra.Command{
		Use:   "unregister NAME|DIR",
		Short: "Take a project offline and end its connections",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return o.with(c.Context(), func(admin *client.Admin) error {
				p, err := named(c.Context(), admin, args[0])
				if err != nil {
					return err
				}
				if err := admin.Unregister(c.Context(), p.Name); err != nil {
					return err
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), schema.OKResponse{OK: true})
				}
				fmt.Fprintf(c.OutOrStdout(), "%s is no longer served\n", p.Name)
				return nil
			})
		},
	}
}

func reloadCommand(o *operator) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "reload NAME|DIR",
		Short: "Approve a project's changed manifest",
		Long: `reload reads the project's manifest, shows what it would change, and asks. What is
shown is what is approved, whatever happens to the file meanwhile.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			asks := term.IsTerminal(int(os.Stdin.Fd()))
			if !yes && !asks {
				return cli.Usage("there is no terminal to ask on: say --yes to approve what changes")
			}
			return o.with(c.Context(), func(admin *client.Admin) error {
				return o.reload(c, admin, args[0], !yes)
			})
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (o *operator) reload(c *cobra.Command, admin *client.Admin, arg string, ask bool) error {
	p, err := named(c.Context(), admin, arg)
	if err != nil {
		return err
	}
	text, err := approved(p.ProjectPath, p.Name)
	if err != nil {
		return err
	}
	request := schema.ReloadRequest{Name: p.Name, Manifest: &text, DryRun: true}
	change, err := admin.Reload(c.Context(), request)
	if err != nil {
		return err
	}
	if ask {
		printChange(c.ErrOrStderr(), p.Name, change)
		fmt.Fprint(c.ErrOrStderr(), "approve? [y/N] ")
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		if reply := strings.ToLower(strings.TrimSpace(line)); reply != "y" && reply != "yes" {
			return fmt.Errorf("not approved; nothing was changed")
		}
	}
	request.DryRun = false
	if change, err = admin.Reload(c.Context(), request); err != nil {
		return err
	}
	if o.asJSON {
		return cli.PrintJSON(c.OutOrStdout(), change)
	}
	if !ask {
		printChange(c.OutOrStdout(), p.Name, change)
	}
	fmt.Fprintf(c.OutOrStdout(), "%s may fetch %d secrets\n", p.Name, len(change.Allowlist))
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
