package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/spf13/cobra"
)

func exportCommand(newProject func() *client.Project) *cobra.Command {
	var flags fetchFlags
	var format string
	c := &cobra.Command{
		Use:   "export [--format shell|dotenv|json] [--only A,B] [--wait 15s]",
		Short: "Print this project's secrets as variables, for a shell or a file",
		Long: `export prints the variables that keyhatch run would set: all of them, or on an
error nothing.

shell is for eval in bash, dash, zsh and any other POSIX shell. json is one
object of texts. dotenv has a value bare where it is plain; else in single
quotes, as it is, line ends included; and where single quotes cannot hold it (a
quote, a carriage return, a backslash at the end or two in a row) in double
quotes, with \n, \r, \", \\, \$ and \` + "`" + `. All of that is what keyhatch-sidecar
reads; some other readers do not undo the escapes in double quotes.`,
		Example: `  eval "$(keyhatch export)"
  keyhatch export --format dotenv --only NPM_TOKEN
  keyhatch export --format json | jq -r .NPM_TOKEN`,
		RunE: func(c *cobra.Command, _ []string) error {
			writeFormat := exportFormats[format]
			if writeFormat == nil {
				return cli.UsageErrorf("--format must be shell, dotenv or json")
			}
			only, err := flags.parse(c)
			if err != nil {
				return err
			}
			p, err := newPlan(c.Context(), newProject(), planOptions{only: only, wait: flags.wait, withVariables: true})
			if err != nil {
				return withHint(err)
			}
			entries, _, err := p.fetchAndRender(c.Context(), p.remainingWait)
			if err != nil {
				return withHint(err)
			}
			var output strings.Builder
			if err := writeFormat(&output, entries); err != nil {
				return withHint(err)
			}
			_, err = io.WriteString(c.OutOrStdout(), output.String())
			return err
		},
	}
	c.Flags().StringVar(&format, "format", "shell", "shell, dotenv or json")
	flags.register(c)
	return c
}

// exportFormats maps the values of --format to functions that write NAME=value entries.
var exportFormats = map[string]func(w *strings.Builder, entries []string) error{
	"shell":  writeShell,
	"dotenv": writeDotenv,
	"json":   writeJSON,
}

// writeShell puts each value into single quotes, in which a POSIX shell knows
// nothing but the quote that ends them.
func writeShell(w *strings.Builder, entries []string) error {
	for _, entry := range entries {
		name, value, _ := strings.Cut(entry, "=")
		fmt.Fprintf(w, "export %s='%s'\n", name, strings.ReplaceAll(value, `'`, `'\''`))
	}
	return nil
}

func writeDotenv(w *strings.Builder, entries []string) error {
	escapes := strings.NewReplacer("\n", `\n`, "\r", `\r`, `"`, `\"`, `\`, `\\`, `$`, `\$`, "`", "\\`")
	for _, entry := range entries {
		name, value, _ := strings.Cut(entry, "=")
		switch {
		case !utf8.ValidString(value):
			return fmt.Errorf("the value of %s is not text: %w", name, errNotText)
		case isSafeUnquoted(value):
		case strings.ContainsAny(value, "'\r") || strings.Contains(value, `\\`) || strings.HasSuffix(value, `\`):
			value = `"` + escapes.Replace(value) + `"`
		default:
			value = "'" + value + "'"
		}
		fmt.Fprintf(w, "%s=%s\n", name, value)
	}
	return nil
}

// isSafeUnquoted reports whether every dotenv reader reads value as it is without quotes.
func isSafeUnquoted(value string) bool {
	for i := 0; i < len(value); i++ {
		c := value[i]
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte("_-./:@%+,", c) < 0 {
			return false
		}
	}
	return value != ""
}

func writeJSON(w *strings.Builder, entries []string) error {
	object := map[string]string{}
	for _, entry := range entries {
		name, value, _ := strings.Cut(entry, "=")
		if !utf8.ValidString(value) {
			return fmt.Errorf("the value of %s is not text: %w", name, errNotText)
		}
		object[name] = value
	}
	return cli.PrintJSON(w, object)
}
