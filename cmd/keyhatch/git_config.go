package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/devcontainer/credential"
)

// keyhatchHelperPattern matches the values of credential.helper that run keyhatch.
var keyhatchHelperPattern = regexp.MustCompile(`^(keyhatch|/.*/git-credential-keyhatch|!.*keyhatch.* credential git)$`)

// checkNoOtherHelper returns an error if git has another helper for the query: once a
// login works, git gives it to all helpers to store. An empty helper removes those before
// it, but not those that are configured after it, as editors do (seen with git 2.39).
func checkNoOtherHelper(ctx context.Context, query credential.GitQuery) error {
	cmd := exec.CommandContext(ctx, "git", "config", "-z", "--get-regexp", `^credential\.(.*\.)?helper$`)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return nil // no helper is configured: this is not a call by git
	}
	if err != nil {
		return fmt.Errorf("looking for git's other helpers: %w %s", err, strings.TrimSpace(stderr.String()))
	}
	var otherHelpers []string
	for entry := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		key, value, _ := strings.Cut(entry, "\n")
		pattern := strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(key, "credential."), "helper"), ".")
		switch {
		case !query.MayMatch(pattern):
		case value == "":
			otherHelpers = nil
		case !keyhatchHelperPattern.MatchString(value):
			otherHelpers = append(otherHelpers, key)
		}
	}
	if otherHelpers == nil {
		return nil
	}
	return &cli.Error{
		Err: fmt.Errorf("git would give the secret to another helper too, which is configured behind keyhatch: %s", strings.Join(otherHelpers, ", ")),
		Hint: "keyhatch credential install puts keyhatch behind them; where that does not help: " +
			"git config --show-origin --get-regexp 'credential.*helper'",
	}
}

// checkGitConfigFile checks that git's configuration of this user is a regular file: git
// replaces the file when it writes, and as root it would replace a device too.
func checkGitConfigFile() error {
	if path := os.Getenv("GIT_CONFIG_GLOBAL"); path != "" {
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			return &cli.Error{Err: fmt.Errorf("GIT_CONFIG_GLOBAL is %s, which is no file", path), Hint: "unset it, or name a file"}
		}
	}
	return nil
}

// runGitConfig runs git config --global with these arguments.
func runGitConfig(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", append([]string{"config", "--global"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("git config %s: %w %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return nil
}
