package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func listCommand(o *operator) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the names of the secrets in the broker's memory",
		RunE: func(c *cobra.Command, _ []string) error {
			return o.with(c.Context(), func(admin *client.Admin) error {
				names, err := admin.List(c.Context())
				if err != nil {
					return err
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), schema.ListResponse{OK: true, Names: names})
				}
				for _, name := range names {
					fmt.Fprintln(c.OutOrStdout(), name)
				}
				return nil
			})
		},
	}
}

func clearCommand(o *operator) *cobra.Command {
	return &cobra.Command{
		Use:   "clear",
		Short: "Drop all secrets and wipe the memory that held them, now",
		Long: `clear drops all secrets and wipes the memory that held them. A sidecar that is
running pushes again when its store changes, or when it is started again.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.with(c.Context(), func(admin *client.Admin) error {
				if err := admin.Clear(c.Context()); err != nil {
					return err
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), schema.OKResponse{OK: true})
				}
				fmt.Fprintln(c.OutOrStdout(), "cleared")
				return nil
			})
		},
	}
}

func pushCommand(o *operator) *cobra.Command {
	return &cobra.Command{
		Use:   "push FILE|-",
		Short: "Replace all secrets with those of a JSON file",
		Long: `push replaces the whole set with that of a JSON object: each member is a secret,
a string or for a bundle an object of strings. A sidecar that is running
puts its store back at its next poll.`,
		Example: `  pass-to-json | keyhatchctl push -
  keyhatchctl push secrets.json    # {"NPM_TOKEN": "...", "aws": {"aws_access_key_id": "..."}}`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			secrets, err := readSecrets(args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return o.with(c.Context(), func(admin *client.Admin) error {
				line, err := wire.Encode(schema.PushRequest{Op: schema.OpPush, Secrets: secrets})
				if err != nil {
					return err
				}
				defer clear(line)
				answer, err := admin.Push(c.Context(), line)
				if err != nil {
					return err
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), answer)
				}
				fmt.Fprintf(c.OutOrStdout(), "loaded %s, generation %d\n", cli.Count(answer.SecretCount, "secret"), answer.Generation)
				return nil
			})
		},
	}
}

// readSecrets reads a file of secrets. The caller's errors name the file.
func readSecrets(file string) (map[schema.SecretName]schema.Value, error) {
	in := io.Reader(os.Stdin)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, errors.Unwrap(err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, schema.MaxPush+1))
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return wire.ParseSecrets(text)
}
