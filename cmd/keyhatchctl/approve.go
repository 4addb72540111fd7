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

// approvalFlags are the flags of a command that can ask for an approval.
type approvalFlags struct{ yes, dryRun bool }

func (f *approvalFlags) addTo(c *cobra.Command) {
	c.Flags().BoolVar(&f.yes, "yes", false, "approve without asking")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "show the changes, and do not apply them")
}

// canAsk reports whether standard input is a terminal, at which an operator can answer.
func canAsk() bool { return term.IsTerminal(int(os.Stdin.Fd())) }

// approve shows a proposal, asks for approval if necessary, and applies the proposal, except with
// --dry-run. propose reads the manifest, and approve calls propose only once, so the approved
// text is the text that was shown. approve connects to the broker a second time to apply the
// proposal, because the broker could close an idle connection while the operator decides.
// socketPath is the path of the project's socket, or "" with --dry-run or after an error.
func approve(c *cobra.Command, o *globalOptions, flags approvalFlags, propose func(*client.Admin) (proposal, error)) (p proposal, socketPath string, err error) {
	if err := o.withAdmin(c.Context(), func(admin *client.Admin) (err error) {
		p, err = propose(admin)
		return err
	}); err != nil {
		return p, "", err
	}
	out := c.OutOrStdout()
	if o.asJSON {
		out = io.Discard
	}
	if err := p.requestApproval(out, c.ErrOrStderr(), flags); err != nil {
		return p, "", err
	}
	if !flags.dryRun {
		err = o.withAdmin(c.Context(), func(admin *client.Admin) (err error) {
			socketPath, err = p.apply(c.Context(), admin)
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

// requestApproval shows a proposal, and returns nil if the proposal can be applied. If the
// proposal has an effect, requestApproval asks the operator at the terminal, unless the command
// line contains --yes or --dry-run. If standard input is not a terminal, requestApproval cannot
// ask. It then returns an error if the proposal contains a change that the command line did not
// ask for.
//
// requestApproval prints the proposal to the writer terminal if an answer of the operator is
// necessary, and otherwise to out.
func (p proposal) requestApproval(out, terminal io.Writer, flags approvalFlags) error {
	hasEffect := p.registered == nil || len(p.changes) > 0
	switch {
	case flags.yes || flags.dryRun || !hasEffect || !canAsk() && !p.unrequested:
		p.print(out)
		return nil
	case canAsk():
		p.print(terminal)
		return confirmApproval(terminal)
	}
	p.print(terminal)
	return &cli.Error{Err: errors.New("cannot ask for approval: standard input is not a terminal"),
		Hint: "to approve the changes, run " + p.approvalCommand, ExitCode: cli.ExitUsage}
}

var errNotApproved = errors.New("not approved: nothing was changed")

// confirmApproval asks the operator on the terminal. It returns errNotApproved unless the answer
// is y or yes. It lets SIGINT and SIGTERM end the process, because canceling the context does not
// interrupt a read from a terminal.
func confirmApproval(w io.Writer) error {
	signal.Reset(os.Interrupt, syscall.SIGTERM)
	fmt.Fprint(w, "approve? [y/N] ")
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	if reply := strings.ToLower(strings.TrimSpace(line)); reply != "y" && reply != "yes" {
		return errNotApproved
	}
	return nil
}
