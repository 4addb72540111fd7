package main

import (
	"fmt"
	"io"
	"os"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func setCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "set NAME|BUNDLE/FIELD",
		Short: "Write one secret into the store",
		Long: `set takes the value from standard input, or asks for it without echo on a
terminal; never from an argument, which every process could see. The file
appears whole, with mode 0600.`,
		Example: `  keyhatch-sidecar set NPM_TOKEN --store dir:$HOME/secrets
  gh auth token | keyhatch-sidecar set GH_TOKEN --store dir:$HOME/secrets`,
		Args: cobra.ExactArgs(1),
	}
	getDir := addDirFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		dir, err := getDir()
		if err != nil {
			return err
		}
		value, err := readValue(args[0])
		if err != nil {
			return fmt.Errorf("reading the value: %w", err)
		}
		defer clear(value)
		if len(value) > schema.MaxPush {
			return fmt.Errorf("the value has over %d bytes, more than a push takes", schema.MaxPush)
		}
		return dir.Set(args[0], value)
	}
	return c
}

func readValue(name string) ([]byte, error) {
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		return io.ReadAll(io.LimitReader(os.Stdin, schema.MaxPush+1))
	}
	fmt.Fprintf(os.Stderr, "value of %s: ", name)
	value, err := term.ReadPassword(in)
	fmt.Fprintln(os.Stderr)
	return value, err
}

func removeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rm NAME|BUNDLE/FIELD",
		Short: "Remove a secret, a bundle's field or a whole bundle from the store",
		Args:  cobra.ExactArgs(1),
	}
	getDir := addDirFlag(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		dir, err := getDir()
		if err != nil {
			return err
		}
		return dir.Remove(args[0])
	}
	return c
}

func listCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "list", Short: "List the names in the store"}
	getDir := addDirFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print them as a JSON array")
	c.RunE = func(c *cobra.Command, _ []string) error {
		dir, err := getDir()
		if err != nil {
			return err
		}
		names, err := dir.List()
		if err != nil {
			return err
		}
		if asJSON {
			return cli.PrintJSON(c.OutOrStdout(), names)
		}
		for _, name := range names {
			fmt.Fprintln(c.OutOrStdout(), name)
		}
		return nil
	}
	return c
}
