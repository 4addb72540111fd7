package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/devcontainer/credential"
	"github.com/spf13/cobra"
)

// installGit configures git to run keyhatch for each host of the manifest.
func installGit(helper credentialHelper, c *cobra.Command, project *client.Project, socket string) error {
	if err := checkGitConfigFile(); err != nil {
		return err
	}
	logins, err := helper.approvedLogins(c.Context(), project)
	if err != nil {
		return err
	}
	if len(logins) == 0 {
		fmt.Fprintln(c.ErrOrStderr(), "the manifest names no host under helpers: git, so there is nothing to install")
		return nil
	}
	command, err := gitHelperCommand(socket)
	if err != nil {
		return err
	}
	// What is there goes first: hosts that are no longer in the manifest, and
	// so that ours come behind whatever has come since.
	if err := removeGitHelpers(c.Context(), io.Discard); err != nil {
		return err
	}
	for _, login := range logins {
		// With a slash it is a section of our own: what the user has for this
		// host stays out of it, and a new section goes to the end of the file,
		// behind every helper that the empty one is to make git forget.
		key := "credential." + credential.LoginURL(login) + "/.helper"
		for _, value := range []string{"", command} {
			if err := runGitConfig(c.Context(), "--add", key, value); err != nil {
				return err
			}
		}
		fmt.Fprintf(c.OutOrStdout(), "git asks keyhatch for %s\n", credential.LoginURL(login))
	}
	return nil
}

// uninstallGit removes what installGit configured.
func uninstallGit(c *cobra.Command) error {
	if err := checkGitConfigFile(); err != nil {
		return err
	}
	return removeGitHelpers(c.Context(), c.OutOrStdout())
}

// gitHelperCommand returns the command that git runs. Its path is absolute, because git
// may be called with another PATH.
func gitHelperCommand(socket string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	command := "!" + quoteShell(self) + " credential git"
	if socket != defaultSocket {
		command = "!" + quoteShell(self) + " --socket " + quoteShell(socket) + " credential git"
	}
	return command, nil
}

// quoteShell quotes a word for the shell that git runs helpers with.
func quoteShell(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// removeGitHelpers removes what installGit configured, for any host: the sections with a
// slash whose last helper is keyhatch.
func removeGitHelpers(ctx context.Context, log io.Writer) error {
	out, err := exec.CommandContext(ctx, "git", "config", "--global", "-z", "--get-regexp", `^credential\..*/\.helper$`).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return nil // none
	}
	if err != nil {
		return fmt.Errorf("git config --get-regexp: %w", err)
	}
	lastHelper := map[string]string{}
	for entry := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		key, value, _ := strings.Cut(entry, "\n")
		lastHelper[key] = value
	}
	for _, key := range slices.Sorted(maps.Keys(lastHelper)) {
		if !keyhatchHelperPattern.MatchString(lastHelper[key]) {
			continue
		}
		if err := runGitConfig(ctx, "--unset-all", key); err != nil {
			return err
		}
		url := strings.TrimSuffix(strings.TrimPrefix(key, "credential."), "/.helper")
		fmt.Fprintf(log, "git no longer asks keyhatch for %s\n", url)
	}
	return nil
}
