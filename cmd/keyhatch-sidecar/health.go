package main

import (
	"fmt"

	"github.com/keyhatch/keyhatch/sidecar"
	"github.com/spf13/cobra"
)

func healthCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "health --store STORE...",
		Short: "See that the broker holds what the store has, for a container's HEALTHCHECK",
		Long: `health reads the store and asks the broker for the names it holds: exit code 0
says that they are the same. An exec: store's command is run for it.`,
		Example: `  HEALTHCHECK CMD keyhatch-sidecar health --store dir:/secrets`,
	}
	getStore, getSocket := addStoreFlags(c), addSocketFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		source, err := getStore()
		if err != nil {
			return err
		}
		socket, err := getSocket()
		if err != nil {
			return err
		}
		count, err := sidecar.CheckHealth(c.Context(), source, socket)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "the broker holds the store's %d secrets\n", count)
		return nil
	}
	return c
}
