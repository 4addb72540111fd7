package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/spf13/cobra"
)

func removeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rm NAME|BUNDLE/FIELD",
		Short: "Remove a secret, a bundle, or a field of a bundle from the store",
		Long: `rm removes the file of a secret or of a field, or the directory of a bundle. If the
secret, the field, or the bundle is a symbolic link, rm removes the link and does not
change the target of the link. rm prints the name of each removed secret or field.

If the directory of a bundle contains anything except fields, for example a hidden file, a
backup of an editor, a subdirectory, or a mount, rm prints the name of this item and
removes nothing.

If an editor has left a copy of the removed file in the store, for example NAME~, NAME.bak, or
.NAME.swp, rm prints a warning and does not remove the copy.

After the change, rm checks that the sidecar can push the change. If the sidecar cannot
push the change, rm reports the reason, and the exit code is 1.`,
		Example: `  keyhatch-sidecar rm NPM_TOKEN --store dir:$HOME/secrets
  keyhatch-sidecar rm aws/aws_access_key_id --store dir:$HOME/secrets`,
		Args:        cobra.ExactArgs(1),
		Annotations: map[string]string{cli.SecretSource: "rm needs only the name of the secret"},
	}
	getDir := addDirFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		dir, err := getDir()
		if err != nil {
			return err
		}
		if err := checkSecretName(args[0]); err != nil {
			return err
		}
		links, removed := linkTargets(dir, args), dir.SecretNames(args[0])
		if err := editStore(c, &dir, func(ctx context.Context) error { return dir.Remove(ctx, args[0]) }); err != nil {
			return withEditHint(err, dir, "rm", args[0])
		}
		for _, name := range removed {
			fmt.Fprintf(c.ErrOrStderr(), "%s: removed\n", name)
		}
		warnAboutEditorFiles(c.ErrOrStderr(), dir, args[0])
		links.warn(c.ErrOrStderr())
		return checkPushable(c, dir, args[0])
	}
	return c
}

// editStore runs an edit of the store dir. While the edit waits for another edit, SIGHUP and
// SIGQUIT cancel the edit, as SIGINT and SIGTERM do. A running edit is not interrupted, so that the
// edit leaves no temporary files.
func editStore(c *cobra.Command, dir *store.Dir, edit func(ctx context.Context) error) error {
	dir.OnWait = func() { fmt.Fprintln(c.ErrOrStderr(), "waiting for another edit of the store") }
	ctx, cancel := context.WithCancelCause(c.Context())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	go func() { // this goroutine ends when ctx ends
		select {
		case sig := <-signals:
			cancel(cli.ExitStatus(128 + int(sig.(syscall.Signal))))
		case <-ctx.Done():
		}
	}()
	err := edit(ctx)
	if status, ok := errors.AsType[cli.ExitStatus](context.Cause(ctx)); ok && errors.Is(err, context.Canceled) {
		return status
	}
	return err
}

// withEditHint adds a hint to an error of an edit if there is a command that solves the problem. verb is
// the command that failed, and name is the secret, the field, or the bundle.
func withEditHint(err error, dir store.Dir, verb, name string) error {
	storeFlag := " --store " + cli.ShellQuote("dir:"+dir.Path)
	if conflict, ok := errors.AsType[*store.ConflictError](err); ok {
		return &cli.Error{Err: err, Hint: "to remove " + conflict.Remove + " first, run keyhatch-sidecar rm " + conflict.Remove + storeFlag}
	}
	if foreign, ok := errors.AsType[*store.ForeignError](err); ok {
		return &cli.Error{Err: err, Hint: "keyhatch-sidecar deletes only secrets and fields; to see the other files, run ls -lA " + cli.ShellQuote(foreign.Path) +
			"; unmount, move, or delete the other files, and then repeat the command"}
	}
	if errors.Is(err, store.ErrCannotRename) {
		return &cli.Error{Err: err, Hint: "for each field of the bundle, run keyhatch-sidecar " + verb + " " + name + "/FIELD" + storeFlag}
	}
	return err
}

// A linkList contains the names and the targets of symbolic links that an edit replaces or
// removes.
type linkList []struct{ name, target string }

// linkTargets returns the names that are symbolic links to existing targets. Call linkTargets before the
// edit, which replaces or removes the links.
func linkTargets(dir store.Dir, names []string) (links linkList) {
	for _, name := range slices.Compact(names) {
		if target := dir.LinkTarget(name); target != "" {
			links = append(links, struct{ name, target string }{name, target})
		}
	}
	return links
}

// warn prints a warning for each target, because the target still contains the old value.
func (l linkList) warn(w io.Writer) {
	for _, link := range l {
		fmt.Fprintf(w, "warning: %s was a symbolic link: its target %s did not change, and still contains the old value\n", link.name, cli.Printable(link.target))
	}
}

// warnAboutEditorFiles prints a warning for each file in which an editor or another program keeps a copy of a
// removed secret. It does not remove the file, because the editor can still be running.
func warnAboutEditorFiles(w io.Writer, dir store.Dir, name string) {
	for _, path := range dir.EditorFiles(name) {
		fmt.Fprintf(w, "warning: the file %s looks like a copy of the removed file, and can still contain the value of %s\nhint: to remove the file, run rm %s\n",
			cli.Printable(path), name, cli.ShellQuote(path))
	}
}

// checkPushable reads the store as the sidecar does. It returns an error if the sidecar cannot
// push the edit of the secret, the bundle, or the field name. The user of the command and the
// sidecar can have different permissions, so checkPushable only prints a warning if it has no
// permission to read the store. It also prints a warning if the store is changing, or if a signal
// interrupts the check.
func checkPushable(c *cobra.Command, dir store.Dir, name string) error {
	reader := store.ChildReader{Args: []string{readCommandName, "--store=dir:" + dir.Path}, Timeout: store.Merged{dir}.MaxReadTime()}
	reading, err := reader.Read(c.Context(), store.LockedReading{})
	reading.Set.Free()
	switch {
	case errors.Is(err, context.Canceled): // the signal came too late to cancel the edit
		fmt.Fprintln(c.ErrOrStderr(), "warning: the store has changed, but the check whether the sidecar can read the store was interrupted")
		return nil
	case errors.Is(err, fs.ErrPermission), errors.Is(err, store.ErrUnstable):
		fmt.Fprintf(c.ErrOrStderr(), "warning: cannot check whether the sidecar can read the store: %s\n", cli.Printable(err.Error()))
		return nil
	case err != nil:
		failure := &cli.Error{Err: fmt.Errorf("the store has changed, but the sidecar does not push the change, because the sidecar cannot use the store: %w", err)}
		if errors.Is(err, store.ErrTooLarge) {
			failure.Hint = "remove secrets with keyhatch-sidecar rm; while the store is too large, the broker keeps all old secrets"
		}
		return failure
	}
	bundle, _, _ := strings.Cut(name, "/")
	for _, path := range slices.Sorted(maps.Keys(reading.Unusable)) {
		if path == filepath.Join(dir.Path, bundle) || filepath.Dir(path) == filepath.Join(dir.Path, bundle) {
			return fmt.Errorf("the store has changed, but the sidecar does not push %s: %s: %s", bundle, path, reading.Unusable[path])
		}
	}
	return nil
}

func listCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the names of the secrets in the store",
		Long: `list prints the name of each secret, and each field of a bundle as BUNDLE/FIELD. list does
not check whether the sidecar can use the files of the secrets.`,
		Example: `  keyhatch-sidecar list --store dir:$HOME/secrets`,
	}
	getDir := addDirFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the names as a JSON array")
	c.RunE = func(c *cobra.Command, _ []string) error {
		dir, err := getDir()
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

// checkSecretName returns a usage error if the name of a secret is invalid. The error
// does not quote the name, because the user may have typed the value of a secret by
// mistake.
func checkSecretName(name string) error {
	parts := strings.Split(name, "/")
	for _, part := range parts {
		if len(parts) > 2 || !schema.ValidSecretName(part) {
			return cli.UsageErrorf("invalid name: use NAME or BUNDLE/FIELD; each part must match %s", schema.SecretNamePattern)
		}
	}
	return nil
}
