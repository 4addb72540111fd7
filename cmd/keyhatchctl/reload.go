package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func reloadCommand(o *globalOptions) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "reload NAME|DIR",
		Short: "Approve a project's changed manifest",
		Long: `reload reads the project's manifest, shows the changes, and asks for approval.
reload approves exactly the manifest that it showed, even if somebody changes the
file before you answer. If the project is declared, its declaration is also updated.`,
		Example: `  keyhatchctl reload api
  keyhatchctl reload --yes ~/src/api    # in a script`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			interactive := term.IsTerminal(int(os.Stdin.Fd()))
			if !yes && !interactive {
				return &cli.Error{Err: errors.New("cannot ask for approval: standard input is not a terminal"),
					Hint: "to approve without a question, run keyhatchctl reload --yes " + args[0], ExitCode: cli.ExitUsage}
			}
			return reloadProject(c, o, args[0], !yes)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "approve the changes without asking")
	return c
}

// reloadProject connects twice, because the broker closes an idle connection while it
// waits for the operator. It reads the manifest only once, so the approved text is the
// text that it showed.
func reloadProject(c *cobra.Command, o *globalOptions, arg string, confirmFirst bool) error {
	var request schema.ReloadRequest
	var change schema.ReloadResponse
	declared := false
	err := o.withAdmin(c.Context(), func(admin *client.Admin) error {
		p, err := findProject(c.Context(), admin, arg)
		if err != nil {
			return err
		}
		text, err := readManifest(p.ProjectPath, p.Name)
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
	if confirmFirst {
		printAllowlistChange(c.ErrOrStderr(), request.Name, change)
		if err := confirmApproval(c.ErrOrStderr()); err != nil {
			return err
		}
	}
	request.DryRun = false
	return o.withAdmin(c.Context(), func(admin *client.Admin) error {
		if declared {
			if err := rewriteDeclarationFile(c.Context(), admin, request.Name, *request.Manifest); err != nil {
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
		if !confirmFirst {
			printAllowlistChange(c.OutOrStdout(), request.Name, change)
		}
		fmt.Fprintf(c.OutOrStdout(), "approved: %s can fetch %s\n", request.Name, cli.Plural(len(change.Allowlist), "secret"))
		return nil
	})
}

// confirmApproval asks the operator on the terminal. It restores the default action of
// signals, because canceling the context does not interrupt a read from a terminal.
func confirmApproval(w io.Writer) error {
	signal.Reset(os.Interrupt, syscall.SIGTERM)
	fmt.Fprint(w, "approve? [y/N] ")
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	if reply := strings.ToLower(strings.TrimSpace(line)); reply != "y" && reply != "yes" {
		return errors.New("not approved: the manifest was not changed")
	}
	return nil
}

func printAllowlistChange(w io.Writer, name schema.ProjectName, change schema.ReloadResponse) {
	if len(change.Added)+len(change.Removed) == 0 {
		fmt.Fprintf(w, "%s: the allowlist does not change\n", name)
	}
	for _, secret := range change.Added {
		fmt.Fprintf(w, "+ %s\n", secret)
	}
	for _, secret := range change.Removed {
		fmt.Fprintf(w, "- %s\n", secret)
	}
}
