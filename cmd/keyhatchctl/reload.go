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
			return reload(c, o, args[0], !yes)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// reload connects twice: the broker ends a connection that says nothing while
// its operator thinks. The text is read once, so that what was shown is sent.
func reload(c *cobra.Command, o *operator, arg string, ask bool) error {
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
