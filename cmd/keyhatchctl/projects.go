package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func projectsCommand(o *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "projects",
		Short: "List the registered projects",
		Long: `projects lists the registered projects. The column PROJECT contains the name under
which the broker serves a project. If the manifest in the project's directory
contains another name, the column MANIFEST shows the other name. With --json, the
output also contains the allowed uids, and the field manifest_state contains the
text of the column MANIFEST.`,
		Example: `  keyhatchctl projects
  keyhatchctl --json projects | jq -r '.[].socket_path'`,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.withAdmin(c.Context(), func(admin *client.Admin) error {
				status, err := admin.Status(c.Context())
				if err != nil {
					return err
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), withManifestStates(status, o))
				}
				return printProjects(c.OutOrStdout(), status, o)
			})
		},
	}
}

// A projectJSON is a project in the JSON output of projects and status.
type projectJSON struct {
	schema.ProjectStatus
	ManifestState string `json:"manifest_state"`
}

func withManifestStates(status schema.StatusResponse, o *globalOptions) []projectJSON {
	trees := newTreeReader(o, status)
	defer trees.close()
	withStates := []projectJSON{}
	for _, p := range status.Projects {
		withStates = append(withStates, projectJSON{p, trees.manifestState(p)})
	}
	return withStates
}

func printProjects(out io.Writer, status schema.StatusResponse, o *globalOptions) error {
	trees := newTreeReader(o, status)
	defer trees.close()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROJECT\tDECLARED\tALLOWED\tCONNECTIONS\tFETCHED\tDENIED\tNOT FOUND\tMANIFEST\tPATH")
	for _, p := range status.Projects {
		declared := "no"
		if p.Declared {
			declared = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", p.Name, declared, p.AllowlistSize, p.Connections,
			p.Counts.Allowed, p.Counts.Denied, p.Counts.NotFound, trees.manifestState(p), cli.PrintableWord(p.ProjectPath))
	}
	return w.Flush()
}
