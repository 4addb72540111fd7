package main

import (
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// readCommandName is the name of the command that the other commands run to read a store.
const readCommandName = "read-store"

// readCommand returns the command that a store.ChildReader runs. Users do not need the command.
func readCommand() *cobra.Command {
	c := &cobra.Command{
		Use:    readCommandName + " --store STORE...",
		Short:  "Read the store for another command of keyhatch-sidecar",
		Hidden: true,
	}
	_, getStore := addStoreFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		source, err := getStore()
		if err != nil {
			return err
		}
		return store.WriteResult(c.Context(), source, c.InOrStdin(), c.OutOrStdout())
	}
	return c
}

// newChildReader returns a reader that runs readCommand with the same store flags. flags are the flags of
// addStoreFlags, and source is the store that these flags select.
func newChildReader(flags *pflag.FlagSet, source store.Merged) *store.ChildReader {
	args := append([]string{readCommandName}, flagArgs(flags, func(*pflag.Flag) bool { return true })...)
	return &store.ChildReader{Args: args, Timeout: source.MaxReadTime()}
}

// flagArgs returns the selected flags with their values as arguments for another process.
func flagArgs(flags *pflag.FlagSet, isSelected func(*pflag.Flag) bool) (args []string) {
	flags.VisitAll(func(f *pflag.Flag) {
		if !isSelected(f) {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			for _, value := range list.GetSlice() {
				args = append(args, "--"+f.Name+"="+value)
			}
		} else {
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	return args
}
