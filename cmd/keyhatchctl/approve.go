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
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// approvalFlags are the flags of commands that ask for an approval.
type approvalFlags struct{ yes, dryRun bool }

func (f *approvalFlags) addTo(c *cobra.Command) {
	c.Flags().BoolVar(&f.yes, "yes", false, "approve without asking")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "show the changes, and do not approve them")
}

// canAsk reports whether there is an operator at a terminal.
func canAsk() bool { return term.IsTerminal(int(os.Stdin.Fd())) }

// approve shows a proposal, asks for approval if ask is set, and applies the proposal.
// approve connects twice, because the broker could close an idle connection while approve
// waits for the operator. The manifest is read only once. Therefore the approved text is
// the text that was shown.
func approve(c *cobra.Command, o *globalOptions, flags approvalFlags, ask, declare bool, propose func(*client.Admin) (proposal, error)) (p proposal, socketPath string, err error) {
	if err := o.withAdmin(c.Context(), func(admin *client.Admin) (err error) {
		p, err = propose(admin)
		return err
	}); err != nil {
		return p, "", err
	}
	switch {
	case ask:
		p.print(c.ErrOrStderr())
		if err := confirmApproval(c.ErrOrStderr()); err != nil {
			return p, "", err
		}
	case !o.asJSON:
		p.print(c.OutOrStdout())
	}
	if !flags.dryRun {
		err = o.withAdmin(c.Context(), func(admin *client.Admin) (err error) {
			socketPath, err = p.apply(c.Context(), admin, declare)
			return err
		})
	}
	if err == nil && o.asJSON {
		var result proposalResult
		if result, err = p.result(socketPath); err == nil {
			err = cli.PrintJSON(c.OutOrStdout(), result)
		}
	}
	return p, socketPath, err
}

var errNotApproved = errors.New("not approved: nothing was changed")

// confirmApproval asks the operator on the terminal. It restores the default action of
// signals, because canceling the context does not interrupt a read from a terminal.
func confirmApproval(w io.Writer) error {
	signal.Reset(os.Interrupt, syscall.SIGTERM)
	fmt.Fprint(w, "approve? [y/N] ")
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	if reply := strings.ToLower(strings.TrimSpace(line)); reply != "y" && reply != "yes" {
		return errNotApproved
	}
	return nil
}
