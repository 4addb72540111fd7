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
		Short: "Render the manifest's secret files, in memory",
		Long: `files writes each secret that the manifest declares with as: file to memory
(` + devcontainer.MemoryDir() + `, a tmpfs that is verified and nobody else's), with the
declared mode, and makes the declared path a link to it. It prints those paths.
A file appears whole or not at all. What stands at a declared path and is not
keyhatch's own link is left alone and refused.

In a template {{field}} is a field of a bundle, and {{value}} any other secret.
Where one secret cannot be had nothing is changed, and every missing one is
named.

--watch stays and renders again when a secret changes. --remove takes the links
and the files away: those of this project, or, where no broker says which that
is, all that are this user's.`,
		Example: `  keyhatch files --wait 15s
  keyhatch files --watch &
  keyhatch files --remove`,
		RunE: func(c *cobra.Command, _ []string) error {
			if remove && (watch || c.Flags().Changed("wait")) {
				return cli.UsageErrorf("--remove goes without other flags")
			}
			if remove {
				return withHint(removeFiles(c.Context(), newProject()))
			}
			if _, err := flags.parse(c); err != nil {
				return err
			}
			return withHint(renderFiles(c, newProject(), flags.wait, watch))
		},
	}
	flags.registerWait(c)
	c.Flags().BoolVar(&watch, "watch", false, "stay, and render again when a secret changes")
	c.Flags().BoolVar(&remove, "remove", false, "take the files and the links to them away")
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
		p.watch(c.Context(), func(err error) {
			fmt.Fprintf(os.Stderr, "keyhatch: the files stay as they are: %v\n", err)
		}, func([]string, bool) {})
	}
	return nil
}

func removeFiles(ctx context.Context, project *client.Project) error {
	info, err := project.Info(ctx)
	if err == nil {
		return devcontainer.NewRendering(memoryDir, info.Project).Remove()
	}
	renderings, err := devcontainer.FindRenderings(memoryDir)
	for _, rendering := range renderings {
		err = errors.Join(err, rendering.Remove())
	}
	return err
}
