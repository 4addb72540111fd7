package main

import (
	"time"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// defaultSocket is where a container mounts its project's directory.
const defaultSocket = "/run/keyhatch/broker.sock"

// fetchFlags are the flags of commands that fetch several secrets.
type fetchFlags struct {
	only []string
	wait time.Duration
}

// register adds --only and --wait.
func (f *fetchFlags) register(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.only, "only", nil, "only these secrets")
	f.registerWait(c)
}

// registerWait adds only --wait.
func (f *fetchFlags) registerWait(c *cobra.Command) {
	c.Flags().DurationVar(&f.wait, "wait", 0, "how long to wait for secrets that are not there yet")
}

// parse checks the flags and returns the names in --only, or nil without that flag.
func (f *fetchFlags) parse(c *cobra.Command) (only []schema.SecretName, err error) {
	if c.Flags().Changed("only") && len(f.only) == 0 {
		// An empty variable in a script must not come to mean everything.
		return nil, cli.UsageErrorf("--only names no secret: leave it out to have all")
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
		return cli.UsageErrorf("--wait must be between 0 and %v", schema.MaxWait)
	}
	return nil
}

func parseSecretName(name string) (schema.SecretName, error) {
	if !schema.ValidSecretName(name) {
		return "", cli.UsageErrorf("a secret's name must match %s", schema.SecretNamePattern)
	}
	return schema.SecretName(name), nil
}
