package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/spf13/cobra"
)

func filesCommand(newProject func() *client.Project) *cobra.Command {
	var flags fetchFlags
	var watch, remove bool
	c := &cobra.Command{
		Use:   "files [--wait 15s] [--watch] | files --remove",
		Short: "Render this project's secret files in memory",
		Long: `For each secret that the manifest declares as a file, write a file in
` + devcontainer.MemoryDir() + `, and make the declared path a link to the written file.
files prints the declared paths.

The directory must be on a tmpfs, and no other user may list or change it. Each
file has the declared mode. If this mode lets other users access the file, keyhatch
gives these users the execute permission for the directories of the file (at most mode
0711 instead of 0700), because opening the file requires this permission. These users
can then also check whether another file of this project exists, and see the size of
that file. To open a file by its declared path, a user also needs the execute
permission for the directory of this path.

A program never reads a partly written file. If a declared path exists and is not
a link that keyhatch created for this project, files fails and does not change the
path.

In a template, {{FIELD}} is the field FIELD of a bundle, and {{value}} is the value
of any other secret. If a secret is missing, files changes no file and lists every
missing secret.

With --watch, files keeps running and renders the files again when a secret or the
approved manifest changes.

With --remove, files removes this project's files and the links to them. If the
broker is unreachable, files --remove cannot determine the project, and removes all
files that this user has rendered, for every project. If a program has replaced a
link by a file, files --remove does not remove this file, prints its path, and fails.`,
		Example: `  keyhatch files --wait 15s
  keyhatch files --watch &
  keyhatch files --remove`,
		RunE: func(c *cobra.Command, _ []string) error {
			if remove && (watch || c.Flags().Changed("wait")) {
				return cli.UsageErrorf("--remove cannot be used with --wait or --watch")
			}
			if remove {
				return withHint(removeFiles(c.Context(), newProject()))
			}
			if _, err := flags.parse(c); err != nil {
				return err
			}
			return withHintFor(renderFiles(c, newProject(), flags.wait, watch), "NAME", "keyhatch files --wait 15s")
		},
	}
	flags.registerWait(c)
	c.Flags().BoolVar(&watch, "watch", false, "keep running, and render the files again when a secret or the approved manifest changes")
	c.Flags().BoolVar(&remove, "remove", false, "remove the files and the links to them")
	return c
}

func renderFiles(c *cobra.Command, project *client.Project, wait time.Duration, watch bool) error {
	p, err := newPlan(c.Context(), project, planOptions{wait: wait, withFiles: true})
	if err != nil {
		return err
	}
	if _, _, err := p.fetchAndRender(c.Context(), p.remainingWait); err != nil {
		return err
	}
	for _, f := range p.files {
		fmt.Fprintln(c.OutOrStdout(), f.Path)
	}
	if watch {
		return p.watch(c.Context(), func(err error, filesChanged bool) {
			failure := "cannot update the files, so the old files remain"
			if filesChanged {
				failure = "cannot complete the update of the files, and some files have already changed"
			}
			fmt.Fprintf(os.Stderr, "keyhatch: %s: %v\n", failure, err)
		}, func([]string, bool) {})
	}
	return nil
}

func removeFiles(ctx context.Context, project *client.Project) error {
	info, err := project.Info(ctx, 0)
	if err == nil {
		return devcontainer.NewRendering(memoryDir, info.Project).Remove()
	}
	if !errors.Is(err, client.ErrUnreachable) {
		return err
	}
	renderings, err := devcontainer.FindRenderings(memoryDir)
	for _, rendering := range renderings {
		err = errors.Join(err, rendering.Remove())
	}
	return err
}
