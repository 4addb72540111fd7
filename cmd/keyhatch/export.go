package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func exportCommand(newProject func() *client.Project) *cobra.Command {
	var flags fetchFlags
	var format string
	c := &cobra.Command{
		Use:   "export [--format shell|fish|dotenv|json] [--only A,B] [--wait 15s]",
		Short: "Print this project's secrets as environment variables",
		Long: `Print the variables that keyhatch run would set. If a secret is missing, export
fails and prints no variable. If the format is shell or fish, a failed export prints
the command false, so that eval and source fail, too. export does not print the
command false if standard output is a terminal.

The formats are:

  shell   commands for eval in bash, dash, zsh, and other POSIX shells
  fish    commands for source in fish
  json    one JSON object of strings
  dotenv  NAME=VALUE lines

The dotenv format has three forms of values:

  no quotes      a value that consists only of letters, digits, and _-./:@%+,
  double quotes  a value with a single quote, a carriage return, two backslashes in
                 a row, or a backslash at the end, or a text of several lines that
                 contains = and is not PEM; the escapes are \n \r \" \\ \$ \` + "`" + `
  single quotes  every other value; it may contain newlines, and it has no escapes

keyhatch-sidecar can read all of these forms. Some other programs do not decode the
escapes in double quotes.`,
		Example: `  eval "$(keyhatch export)"
  keyhatch export --format fish | source
  keyhatch export --format dotenv --only NPM_TOKEN
  keyhatch export --format json | jq -r .NPM_TOKEN`,
		RunE: func(c *cobra.Command, _ []string) error {
			writeFormat := exportFormats[format]
			if writeFormat == nil {
				return cli.UsageErrorf("--format must be shell, fish, dotenv, or json")
			}
			only, err := flags.parse(c)
			if err != nil {
				return err
			}
			p, err := newPlan(c.Context(), newProject(), planOptions{only: only, wait: flags.wait, withVariables: true})
			if err != nil {
				return withHintFor(err, "NAME", "keyhatch export --wait 15s")
			}
			entries, _, err := p.fetchAndRender(c.Context(), p.remainingWait)
			if err != nil {
				return withHintFor(err, "NAME", "keyhatch export --wait 15s")
			}
			var output strings.Builder
			if err := writeFormat(&output, entries); err != nil {
				return withHintFor(err, "NAME", "keyhatch export --wait 15s")
			}
			_, err = io.WriteString(c.OutOrStdout(), output.String())
			return err
		},
	}
	c.Flags().StringVar(&format, "format", "shell", "output `FORMAT`: shell, fish, dotenv, or json")
	flags.register(c)
	return c
}

// exportFormats maps each value of --format to the function that writes NAME=value entries
// in this format.
var exportFormats = map[string]func(w *strings.Builder, entries []string) error{
	"shell":  writeShell,
	"fish":   writeFish,
	"dotenv": writeDotenv,
	"json":   writeJSON,
}

// writeShell writes each value in single quotes. Inside single quotes, only the closing quote
// has a special meaning for a POSIX shell.
func writeShell(w *strings.Builder, entries []string) error {
	for _, entry := range entries {
		name, value, _ := strings.Cut(entry, "=")
		fmt.Fprintf(w, "export %s='%s'\n", name, strings.ReplaceAll(value, `'`, `'\''`))
	}
	return nil
}

// writeFish writes each value in single quotes. Inside single quotes, fish gives a special
// meaning only to the closing quote and to a backslash before a quote or a backslash.
func writeFish(w *strings.Builder, entries []string) error {
	escapes := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	for _, entry := range entries {
		name, value, _ := strings.Cut(entry, "=")
		fmt.Fprintf(w, "set -gx %s '%s'\n", name, escapes.Replace(value))
	}
	return nil
}

// printFalse prints the command false if the failed command is keyhatch export and a shell may read
// the output. printFalse is necessary because a shell ignores the exit code of a command
// substitution in the arguments of eval, even with set -e. An unknown format also makes printFalse
// print false, because the user may have mistyped shell or fish. args are the arguments of
// keyhatch.
func printFalse(root *cobra.Command, args []string) {
	c, _, err := root.Find(args)
	if err != nil || c.Name() != "export" || term.IsTerminal(int(os.Stdout.Fd())) {
		return
	}
	if format := c.Flag("format").Value.String(); format != "dotenv" && format != "json" {
		fmt.Fprintln(root.OutOrStdout(), "false")
	}
}

func writeDotenv(w *strings.Builder, entries []string) error {
	escapes := strings.NewReplacer("\n", `\n`, "\r", `\r`, `"`, `\"`, `\`, `\\`, `$`, `\$`, "`", "\\`")
	for _, entry := range entries {
		name, value, _ := strings.Cut(entry, "=")
		switch {
		case !utf8.ValidString(value):
			return fmt.Errorf("cannot print the value of %s in this format: %w", name, errNotText)
		case isSafeUnquoted(value):
		case strings.ContainsAny(value, "'\r") || strings.Contains(value, `\\`) || strings.HasSuffix(value, `\`) || looksLikeEntries(value):
			value = `"` + escapes.Replace(value) + `"`
		default:
			value = "'" + value + "'"
		}
		fmt.Fprintf(w, "%s=%s\n", name, value)
	}
	return nil
}

// looksLikeEntries reports whether a line of value could look like another NAME=value. keyhatch-sidecar
// then refuses the value, unless the value is in one line.
func looksLikeEntries(value string) bool {
	if strings.HasPrefix(value, "-----BEGIN ") {
		value = pemPadding.ReplaceAllString(value, "\n")
	}
	return strings.Contains(value, "\n") && strings.Contains(value, "=")
}

// pemPadding matches the = at the end of a PEM text, which do not look like an entry.
var pemPadding = regexp.MustCompile(`=+\n-----END `)

// isSafeUnquoted reports whether value needs no quotes in any variant of the dotenv format.
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
			return fmt.Errorf("cannot print the value of %s in this format: %w", name, errNotText)
		}
		object[name] = value
	}
	return cli.PrintJSON(w, object)
}
