package main

import (
	"time"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// defaultSocket is the default path of the project's socket in a container.
const defaultSocket = "/run/keyhatch/broker.sock"

// fetchFlags contains the flags of the commands that fetch several secrets.
type fetchFlags struct {
	only []string
	wait time.Duration
}

// register adds the flags --only and --wait.
func (f *fetchFlags) register(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.only, "only", nil, "fetch only these secrets: `NAMES` separated by commas (default: all secrets that the manifest allows)")
	f.registerWait(c)
}

// registerWait adds the flag --wait, but not the flag --only.
func (f *fetchFlags) registerWait(c *cobra.Command) {
	c.Flags().DurationVar(&f.wait, "wait", 0, "maximum time to wait for missing secrets, for example 15s")
}

// parse checks the flags and returns the names in --only, or nil if --only is not set.
func (f *fetchFlags) parse(c *cobra.Command) (only []schema.SecretName, err error) {
	if c.Flags().Changed("only") && len(f.only) == 0 {
		// In a script, the value of --only may come from an empty variable. An empty
		// value must not select all secrets.
		return nil, cli.UsageErrorf("--only contains no name: remove --only to fetch all secrets")
	}
	if err := checkWait(f.wait); err != nil {
		return nil, err
	}
	for _, text := range f.only {
		name, err := parseSecretName(text)
		if err != nil {
			return nil, err
		}
		only = append(only, name)
	}
	return only, nil
}

// checkWait checks that the protocol accepts the value of --wait.
func checkWait(wait time.Duration) error {
	if wait < 0 || wait > schema.MaxWait {
		return cli.UsageErrorf("--wait must be between 0s and %v", schema.MaxWait)
	}
	return nil
}

func parseSecretName(name string) (schema.SecretName, error) {
	if !schema.ValidSecretName(name) {
		return "", cli.UsageErrorf("the name of a secret must match %s", schema.SecretNamePattern)
	}
	return schema.SecretName(name), nil
}
