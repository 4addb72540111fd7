package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func statusCommand(o *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the broker's status",
		Long: `status shows how many secrets the broker has, how their memory is protected, and
the registered projects.

If a manifest changed since its approval, the approved manifest is still in effect.
To approve a changed manifest, run keyhatchctl reload.`,
		Example: `  keyhatchctl status
  keyhatchctl --json status | jq .secret_count`,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.withAdmin(c.Context(), func(admin *client.Admin) error {
				status, err := admin.Status(c.Context())
				if err != nil {
					return err
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), struct {
						schema.StatusResponse
						Projects []projectJSON `json:"projects"` // replaces the field projects of StatusResponse in the output
					}{status, withManifestStates(status, o)})
				}
				return printStatus(c.OutOrStdout(), status, o)
			})
		},
	}
}

func printStatus(out io.Writer, s schema.StatusResponse, o *globalOptions) error {
	cause, _ := o.noSecretsText(s)
	loaded := "no secrets: " + cause
	if s.SecretsLoadedAt != nil {
		loaded = fmt.Sprintf("%s, generation %d, pushed %s", cli.Plural(s.SecretCount, "secret"), s.Generation, formatTime(*s.SecretsLoadedAt))
	}
	memory := string(s.Memory)
	if s.Memory == schema.MemoryUnlocked {
		memory += " (not locked, could be written to swap: raise RLIMIT_MEMLOCK for keyhatchd)"
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "broker\t%s, protocol %d\n", s.BrokerVersion, s.ProtocolVersion)
	token := "not required"
	if s.AdminToken {
		token = "required from each client of the admin socket"
	}
	fmt.Fprintf(w, "token\t%s\n", token)
	fmt.Fprintf(w, "up\t%v\n", time.Duration(s.UptimeSeconds)*time.Second)
	fmt.Fprintf(w, "loaded\t%s\n", loaded)
	fmt.Fprintf(w, "memory\t%s\n", memory)
	restart := restartEffects[s.DescriptorStore]
	if s.DescriptorStore == schema.DescriptorStoreAbsent && s.ProjectsDir != "" {
		restart += "; to declare a project: " + o.registerCommand("DIR", registerOptions{persist: true}, s)
	}
	fmt.Fprintf(w, "restart\t%s\n", restart)
	if s.AuditDropped > 0 {
		fmt.Fprintf(w, "audit\t%s could not be written\n", cli.Plural(int(s.AuditDropped), "event"))
	}
	if s.StoreProblems > 0 {
		fmt.Fprintf(w, "store\tthe sidecar has %s with its store (for a fix, run %s)\n", cli.Plural(s.StoreProblems, "problem"), o.command("doctor"))
	}
	for _, p := range s.Problems {
		subject := cli.Printable(p.Project)
		if p.Project == "" {
			subject = "declared projects"
		}
		fmt.Fprintf(w, "problem\t%s: %s (for a fix, run %s)\n", subject, cli.Printable(p.Message), o.command("doctor"))
	}
	fmt.Fprintf(w, "projects\t%d\n", len(s.Projects))
	if err := w.Flush(); err != nil || len(s.Projects) == 0 {
		return err
	}
	fmt.Fprintln(out)
	return printProjects(out, s, o)
}

// restartEffects describes the effect of a restart of the broker, for each state of
// the descriptor store.
var restartEffects = map[schema.DescriptorStore]string{
	schema.DescriptorStoreKept:    "keeps all projects: the service manager stores their sockets and registrations",
	schema.DescriptorStoreRefused: "can end the access of undeclared projects, because the service manager does not store all their sockets (see the broker's log)",
	schema.DescriptorStoreAbsent:  "ends the access of undeclared projects, because no service manager stores their sockets",
}
