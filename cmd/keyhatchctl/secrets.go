package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func listCommand(o *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the names of the secrets in the broker's memory",
		RunE: func(c *cobra.Command, _ []string) error {
			return o.withAdmin(c.Context(), func(admin *client.Admin) error {
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

func clearCommand(o *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "clear",
		Short: "Remove all secrets from the broker and wipe their memory",
		Long: `clear removes all secrets from the broker's memory and wipes this memory. After a clear,
a running sidecar pushes its secrets again when its store changes, when the sidecar or
the broker is restarted, or when the sidecar receives the signal SIGUSR1.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.withAdmin(c.Context(), func(admin *client.Admin) error {
				if err := admin.Clear(c.Context()); err != nil {
					return err
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), schema.OKResponse{OK: true})
				}
				fmt.Fprintln(c.OutOrStdout(), "cleared")
				if status, err := admin.Status(c.Context()); err == nil && isSidecarConnected(status) {
					fmt.Fprintf(c.OutOrStdout(), "a running sidecar does not push the secrets again until its store changes\nto load the secrets again, %s\n", pushAgainFix(status))
				}
				return nil
			})
		},
	}
}

func pushCommand(o *globalOptions) *cobra.Command {
	var allowEmpty bool
	c := &cobra.Command{
		Use:   "push FILE|-",
		Short: "Replace all secrets with those in a JSON file",
		Long: `push replaces all secrets in the broker's memory with those in FILE, or in standard
input if FILE is -. FILE must contain one JSON object. Each key of the JSON object is
the name of a secret. The value of each secret must be a string, or for a bundle an
object whose values are strings. If standard input is a terminal, push asks for the
JSON object and hides your input. Press Ctrl-D to end the input.

Without --allow-empty, push refuses an empty value, and an object without secrets. To
remove all secrets, use keyhatchctl clear.

A running sidecar replaces the pushed secrets with the secrets in its store when the
sidecar next checks the broker, at the latest after the interval of its flag --poll.`,
		Example: `  pass-to-json | keyhatchctl push -
  keyhatchctl push secrets.json    # {"NPM_TOKEN": "...", "aws": {"aws_access_key_id": "..."}}`,
		Args:        cobra.ExactArgs(1),
		Annotations: map[string]string{cli.SecretSource: "push reads the secrets from a file, or from standard input if FILE is -"},
		RunE: func(c *cobra.Command, args []string) error {
			secrets, err := readSecretsFile(c.Context(), args[0], c.InOrStdin())
			if _, statErr := os.Lstat(args[0]); args[0] != "-" && statErr != nil {
				// Do not print the argument, because it may contain secrets.
				return &cli.Error{Err: fmt.Errorf("cannot read the file with the secrets: %w", errors.Unwrap(statErr)),
					Hint: "the argument must be a file, or - for standard input; a value cannot be an argument, because other users can see it"}
			}
			if err != nil {
				return fmt.Errorf("cannot read the secrets from %s: %w", fileOrStdin(args[0]), err)
			}
			if !allowEmpty {
				if err := o.checkNotEmpty(secrets); err != nil {
					return err
				}
			}
			return o.withAdmin(c.Context(), func(admin *client.Admin) error {
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
				fmt.Fprintf(c.OutOrStdout(), "loaded %s, generation %d\n", cli.Plural(answer.SecretCount, "secret"), answer.Generation)
				return nil
			})
		},
	}
	c.Flags().BoolVar(&allowEmpty, "allow-empty", false, "allow empty values, and an object without secrets")
	return c
}

// checkNotEmpty returns an error if there are no secrets or if a value is empty. A program that fails
// to print the secrets often prints an empty object or empty values.
func (o *globalOptions) checkNotEmpty(secrets map[schema.SecretName]schema.Value) error {
	if len(secrets) == 0 {
		return &cli.Error{Err: errors.New("the input contains no secrets: the broker did not change anything"), Hint: "to remove all secrets, run " + o.command("clear")}
	}
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		value := secrets[name]
		isEmpty := value.Fields == nil && value.Text == "" || value.Fields != nil && len(value.Fields) == 0
		for _, text := range value.Fields {
			isEmpty = isEmpty || text == ""
		}
		if isEmpty {
			return &cli.Error{Err: fmt.Errorf("%s is empty or has an empty field: the broker did not change anything", name), Hint: "to push an empty value, add --allow-empty"}
		}
	}
	return nil
}

func fileOrStdin(arg string) string {
	if arg == "-" {
		return "standard input"
	}
	return arg
}

// readSecretsFile reads secrets from a file, or from stdin if file is "-". If the file or standard input is
// a terminal, readSecretsFile hides the input. The errors of readSecretsFile do not contain the path of the
// file.
func readSecretsFile(ctx context.Context, file string, stdin io.Reader) (map[schema.SecretName]schema.Value, error) {
	in, terminal := stdin, os.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, errors.Unwrap(err)
		}
		defer f.Close()
		in, terminal = f, f // the file can be /dev/tty or /dev/stdin
	}
	// The buffer never grows, because growing would leave copies of the secrets in memory.
	text := make([]byte, 0, schema.MaxPush+1)
	defer func() { clear(text[:cap(text)]) }()
	var err error
	if term.IsTerminal(int(terminal.Fd())) {
		text, err = cli.ReadHidden(ctx, terminal, "JSON object with all secrets", text)
	} else {
		text, err = cli.ReadAll(in, text)
	}
	if err != nil {
		return nil, err
	}
	return wire.ParseSecrets(text)
}
