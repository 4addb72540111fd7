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

// installGit configures git to run keyhatch for each host that the approved manifest declares.
func installGit(helper credentialHelper, c *cobra.Command, project *client.Project, socket string) error {
	if err := checkGitConfigFile(); err != nil {
		return err
	}
	logins, err := helper.approvedLogins(c.Context(), project)
	if err != nil {
		return err
	}
	if len(logins) == 0 {
		fmt.Fprintln(c.ErrOrStderr(), "git was not configured: the approved manifest declares no host under helpers: git")
		return nil
	}
	command, err := gitCredentialHelperValue(socket)
	if err != nil {
		return err
	}
	// First remove the lines of an earlier installation. Otherwise git would still use
	// keyhatch for hosts that are no longer in the manifest, and keyhatch would be before
	// the helpers that other programs have added since then.
	if err := removeGitHelpers(c.Context(), io.Discard); err != nil {
		return err
	}
	for _, login := range logins {
		// The slash at the end of the URL makes git create a separate section at the end of the
		// file, so the user's section for this host does not change. The first helper in the new
		// section is empty. The empty helper turns off all helpers for this host that git has read
		// before, from this file and from the system's configuration.
		key := "credential." + credential.LoginURL(login) + "/.helper"
		for _, value := range []string{"", command} {
			if err := runGitConfig(c.Context(), "--add", key, value); err != nil {
				return err
			}
		}
		fmt.Fprintf(c.OutOrStdout(), "git now gets credentials for %s from keyhatch\n", credential.LoginURL(login))
	}
	return nil
}

// uninstallGit removes the configuration that installGit wrote.
func uninstallGit(c *cobra.Command) error {
	if err := checkGitConfigFile(); err != nil {
		return err
	}
	return removeGitHelpers(c.Context(), c.OutOrStdout())
}

// gitCredentialHelperValue returns the value of git's setting credential.helper, which is a
// command. The path in the command is absolute, because git may run with another PATH.
func gitCredentialHelperValue(socket string) (string, error) {
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

// quoteShell quotes a word for the shell in which git runs its helpers.
func quoteShell(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// removeGitHelpers removes the configuration that installGit wrote, for every host. It assumes
// that installGit wrote a section if the URL of the section ends in a slash and the last
// helper of the section is keyhatch.
func removeGitHelpers(ctx context.Context, log io.Writer) error {
	out, err := exec.CommandContext(ctx, "git", "config", "--global", "-z", "--get-regexp", `^credential\..*/\.helper$`).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return nil // git config found no such key
	}
	if err != nil {
		return fmt.Errorf("git config --get-regexp failed: %w", err)
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
		fmt.Fprintf(log, "git no longer gets credentials for %s from keyhatch\n", url)
	}
	return nil
}
