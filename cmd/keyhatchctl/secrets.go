package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/keyhatch/keyhatch/broker/client"
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
replaces it in turn when its store changes.`,
		Example: `  pass-to-json | keyhatchctl push -
  keyhatchctl push secrets.json    # {"NPM_TOKEN": "...", "aws": {"aws_access_key_id": "..."}}`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			secrets, err := readSecrets(args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return o.with(c.Context(), func(admin *client.Admin) error {
				answer, err := admin.Push(c.Context(), schema.PushRequest{Secrets: secrets})
				if err != nil {
					return err
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), answer)
				}
				fmt.Fprintf(c.OutOrStdout(), "%d secrets are loaded, generation %d\n", answer.SecretCount, answer.Generation)
				return nil
			})
		},
	}
}

// readSecrets reads a file of secrets strictly. Its errors hold nothing of what
// is in the file but names that are valid.
func readSecrets(file string) (map[schema.SecretName]schema.Value, error) {
	in := io.Reader(os.Stdin)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, errors.Unwrap(err) // the caller names the file
		}
		defer f.Close()
		in = f
	}
	secrets := map[schema.SecretName]schema.Value{}
	d := jsontext.NewDecoder(io.LimitReader(in, schema.MaxPush+1))
	err := object(d, func(name schema.SecretName) error {
		switch d.PeekKind() {
		case jsontext.KindString:
			token, err := d.ReadToken()
			if err != nil {
				return errNotJSON
			}
			secrets[name] = schema.Value{Text: token.String()}
			return nil
		case jsontext.KindBeginObject:
			bundle := map[schema.SecretName]string{}
			secrets[name] = schema.Value{Fields: bundle}
			return object(d, func(field schema.SecretName) error {
				if d.PeekKind() != jsontext.KindString {
					return fmt.Errorf("field %s of %s is not a string", field, name)
				}
				token, err := d.ReadToken()
				if err != nil {
					return errNotJSON
				}
				bundle[field] = token.String()
				return nil
			})
		}
		return fmt.Errorf("%s is neither a string nor an object of strings", name)
	})
	if err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, errors.New("there is data after the JSON object")
	}
	return secrets, nil
}

// A parser's own errors quote what they could not read.
var errNotJSON = fmt.Errorf("it is not a JSON object in UTF-8, with each name once, of at most %d bytes", schema.MaxPush)

func object(d *jsontext.Decoder, member func(schema.SecretName) error) error {
	if d.PeekKind() != jsontext.KindBeginObject {
		return errNotJSON
	}
	if _, err := d.ReadToken(); err != nil {
		return errNotJSON
	}
	for d.PeekKind() == jsontext.KindString {
		token, err := d.ReadToken()
		if err != nil {
			return errNotJSON
		}
		name := token.String()
		if !schema.ValidSecretName(name) {
			return fmt.Errorf("a name does not match %s", schema.SecretNamePattern)
		}
		if err := member(schema.SecretName(name)); err != nil {
			return err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return errNotJSON
	}
	return nil
}
