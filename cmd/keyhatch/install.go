package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/spf13/cobra"
)

func installCommand(project func() *client.Project, socket *string) *cobra.Command {
	var remove bool
	c := &cobra.Command{
		Use:   "install [--remove]",
		Short: "Tell git to ask keyhatch for the manifest's hosts",
		Long: `install writes, for each host under helpers: git in the manifest, two lines into
git's configuration of this user:

  [credential "https://github.com/"]
      helper =
      helper = !keyhatch credential git

The empty one makes git forget the helpers before it, for that host: git hands
what one helper answers to all of them to keep. One that comes behind it later,
from an editor say, is noticed when git asks, and nothing is answered then:
install again. What was there stays, for this host too, and counts again after
--remove.`,
		Example: `  keyhatch credential install
  keyhatch credential install --remove`,
		RunE: func(c *cobra.Command, _ []string) error {
			h, err := helpers(c.Context(), project())
			if err != nil {
				return err
			}
			if len(h.Git) == 0 {
				fmt.Fprintln(c.ErrOrStderr(), "the manifest names no host under helpers: git, so there is nothing to install")
				return nil
			}
			command, err := helperCommand(*socket)
			if err != nil {
				return err
			}
			for _, login := range h.Git {
				// With a slash it is a section of our own: what the user has for this
				// host stays out of it, and a new section goes to the end of the file,
				// behind every helper that the empty one is to make git forget.
				key := "credential." + devcontainer.URL(login) + "/.helper"
				if err := unset(c.Context(), key); err != nil {
					return err
				}
				if remove {
					fmt.Fprintf(c.OutOrStdout(), "git no longer asks keyhatch for %s\n", devcontainer.URL(login))
					continue
				}
				for _, value := range []string{"", command} {
					if err := gitConfig(c.Context(), "--add", key, value); err != nil {
						return err
					}
				}
				fmt.Fprintf(c.OutOrStdout(), "git asks keyhatch for %s\n", devcontainer.URL(login))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&remove, "remove", false, "take it back")
	return c
}

// helperCommand is what git runs, by an absolute path: git may be called with
// another PATH than ours.
func helperCommand(socket string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	command := "!" + quote(self) + " credential git"
	if socket != defaultSocket {
		command = "!" + quote(self) + " --socket " + quote(socket) + " credential git"
	}
	return command, nil
}

// quote makes one word of the shell's that git runs helpers with.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// unset removes a host's helpers, which must be ours: another's is for its owner
// to remove. None at all is as well (git-config(1): exit codes 1 and 5).
func unset(ctx context.Context, key string) error {
	out, err := exec.CommandContext(ctx, "git", "config", "--global", "-z", "--get-all", key).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("git config --get-all: %w", err)
	}
	for value := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if value != "" && !ours.MatchString(value) {
			return &cli.Failure{Err: fmt.Errorf("%s is another helper's; nothing was changed", key), Hint: "git config --global --unset-all " + key + " removes it"}
		}
	}
	return gitConfig(ctx, "--unset-all", key)
}

func gitConfig(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", append([]string{"config", "--global"}, args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("git config %s: %w %s", args[0], err, strings.TrimSpace(said.String()))
	}
	return nil
}
