package main

import (
	"time"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// defaultSocket is where a container mounts its project's directory.
const defaultSocket = "/run/keyhatch/broker.sock"

// A choice is what the flags of run and export say: which secrets, how long to
// wait for them, and under which names.
type choice struct {
	only []string
	wait time.Duration
}

func (o *choice) flags(c *cobra.Command) {
	c.Flags().StringSliceVar(&o.only, "only", nil, "only these secrets")
	o.waitFlag(c)
}

func (o *choice) waitFlag(c *cobra.Command) {
	c.Flags().DurationVar(&o.wait, "wait", 0, "how long to wait for secrets that are not there yet")
}

// check holds the flags to their rules and returns the names in --only.
func (o *choice) check(c *cobra.Command) ([]schema.SecretName, error) {
	if c.Flags().Changed("only") && len(o.only) == 0 {
		// An empty variable in a script must not come to mean everything.
		return nil, cli.Usage("--only names no secret: leave it out to have all")
	}
	if err := checkWait(o.wait); err != nil {
		return nil, err
	}
	var names []schema.SecretName
	for _, one := range o.only {
		name, err := secretName(one)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// checkWait holds --wait to what the protocol takes.
func checkWait(wait time.Duration) error {
	if wait < 0 || wait > schema.MaxWait {
		return cli.Usage("--wait must be between 0 and %v", schema.MaxWait)
	}
	return nil
}

func secretName(name string) (schema.SecretName, error) {
	if !schema.ValidSecretName(name) {
		return "", cli.Usage("a secret's name must match %s", schema.SecretNamePattern)
	}
	return schema.SecretName(name), nil
}
