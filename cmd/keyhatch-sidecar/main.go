// Command keyhatch-sidecar runs in the trusted sidecar: it watches a store of
// secrets and pushes what is there into the broker's memory.
package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func main() { os.Exit(cli.Run(command())) }

func command() *cobra.Command {
	c := &cobra.Command{
		Use:   "keyhatch-sidecar",
		Short: "Watch a store of secrets and push what is there to the broker",
		Long: `A store is a directory, dir:PATH: each file in it is a secret named by the file,
each subdirectory a bundle whose files are its fields. Names that begin with a
dot are passed over. One newline at the end of a file is not part of the secret.`,
		Example: `  keyhatch-sidecar set NPM_TOKEN --store dir:$HOME/secrets
  keyhatch-sidecar run --store dir:$HOME/secrets`,
	}
	c.AddCommand(runCommand(), setCommand(), removeCommand(), listCommand())
	return c
}

// storeFlag adds --store and returns what reads it.
func storeFlag(c *cobra.Command) func() (sidecar.Dir, error) {
	store := c.Flags().String("store", "", "the store: dir:PATH")
	return func() (sidecar.Dir, error) {
		path, ok := strings.CutPrefix(*store, "dir:")
		if !ok || path == "" {
			return sidecar.Dir{}, cli.Usage("--store must be dir:PATH")
		}
		return sidecar.Dir{Path: path}, nil
	}
}

func runCommand() *cobra.Command {
	var socket, onExit string
	var poll time.Duration
	var keepNewline bool
	c := &cobra.Command{
		Use:   "run --store dir:PATH",
		Short: "Push the store now, and whenever it changes or the broker comes back",
		Long: `run keeps the broker's memory equal to the store. A store that is missing or bad
changes nothing: the broker keeps the last good set, and what is wrong is said
once. After keyhatchctl clear the broker stays empty until the store changes.`,
	}
	store := storeFlag(c)
	c.Flags().StringVar(&socket, "socket", "", "the broker's admin socket (default: /run/keyhatch/admin/admin.sock for root, else below $XDG_RUNTIME_DIR)")
	c.Flags().DurationVar(&poll, "poll", 30*time.Second, "how often to look whatever the events say; network file systems have none")
	c.Flags().StringVar(&onExit, "on-exit", "keep", "what becomes of the broker's secrets at the end: keep or clear")
	c.Flags().BoolVar(&keepNewline, "keep-newline", false, "take files as they are, to the last newline")
	c.RunE = func(c *cobra.Command, _ []string) error {
		dir, err := store()
		if err != nil {
			return err
		}
		dir.KeepNewline = keepNewline
		if onExit != "keep" && onExit != "clear" {
			return cli.Usage("--on-exit must be keep or clear")
		}
		if poll <= 0 {
			return cli.Usage("--poll must be more than 0")
		}
		if socket == "" {
			socket = cli.DefaultAdminSocket()
		}
		if socket == "" {
			return cli.Usage("neither --socket nor XDG_RUNTIME_DIR says where the admin socket is")
		}
		config := sidecar.Config{
			Store: dir, Socket: socket, Poll: poll, ClearOnExit: onExit == "clear",
			Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		}
		return config.Run(c.Context())
	}
	return c
}

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
	store := storeFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		dir, err := store()
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
	store := storeFlag(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		dir, err := store()
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
	store := storeFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print them as a JSON array")
	c.RunE = func(c *cobra.Command, _ []string) error {
		dir, err := store()
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
