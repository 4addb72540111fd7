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
		Short: "Say how the broker is, in counts",
		Long: `status says what the broker holds, in counts, and which projects it serves. Where
a manifest was changed since its approval, what was approved is still served,
and keyhatchctl reload approves the change.`,
		Example: `  keyhatchctl status
  keyhatchctl --json status | jq .secret_count`,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.withAdmin(c.Context(), func(admin *client.Admin) error {
				status, err := admin.Status(c.Context())
				if err != nil {
					return err
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), status)
				}
				return printStatus(c.OutOrStdout(), status)
			})
		},
	}
}

func printStatus(out io.Writer, s schema.StatusResponse) error {
	loaded := "nothing: the sidecar has not pushed since the start or the last clear"
	if s.SecretsLoadedAt != nil {
		loaded = fmt.Sprintf("%s, generation %d, pushed %s", cli.Plural(s.SecretCount, "secret"), s.Generation, s.SecretsLoadedAt.Local().Format(time.DateTime))
	}
	memory := string(s.Memory)
	if s.Memory == schema.MemoryUnlocked {
		memory += " (could be swapped out: raise RLIMIT_MEMLOCK)"
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "broker\t%s, protocol %d\n", s.BrokerVersion, s.ProtocolVersion)
	fmt.Fprintf(w, "up\t%v\n", time.Duration(s.UptimeSeconds)*time.Second)
	fmt.Fprintf(w, "loaded\t%s\n", loaded)
	fmt.Fprintf(w, "memory\t%s\n", memory)
	fmt.Fprintf(w, "restart\t%s\n", restartEffects[s.DescriptorStore])
	if s.AuditDropped > 0 {
		fmt.Fprintf(w, "audit\t%d events could not be recorded\n", s.AuditDropped)
	}
	fmt.Fprintf(w, "projects\t%d\n", len(s.Projects))
	if err := w.Flush(); err != nil || len(s.Projects) == 0 {
		return err
	}
	fmt.Fprintln(out)
	return printProjects(out, s.Projects)
}

// restartEffects describes what a restart of the broker loses, by the state of the
// descriptor store.
var restartEffects = map[schema.DescriptorStore]string{
	schema.DescriptorStoreKept:    "loses nothing: the service manager keeps the sockets and registrations",
	schema.DescriptorStoreRefused: "loses what is not declared: the service manager does not keep all (see the daemon's log)",
	schema.DescriptorStoreAbsent:  "loses what is not declared: no service manager keeps it",
}
