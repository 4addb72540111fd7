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

// ours are the ways to name keyhatch as git's helper.
var ours = regexp.MustCompile(`^(keyhatch|/.*/git-credential-keyhatch|!.*keyhatch.* credential git)$`)

// alone refuses to answer where git has other helpers beside keyhatch for what it
// asks about: once a login works, git gives it to all of them to store. The empty
// helper drops those before it, but what is configured behind it, where editors
// put theirs, joins in again (seen with git 2.39).
func alone(ctx context.Context, query credential.GitQuery) error {
	cmd := exec.CommandContext(ctx, "git", "config", "-z", "--get-regexp", `^credential\.(.*\.)?helper$`)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return nil // none at all: somebody else runs us
	}
	if err != nil {
		return fmt.Errorf("looking for git's other helpers: %w %s", err, strings.TrimSpace(said.String()))
	}
	var others []string
	for entry := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		key, value, _ := strings.Cut(entry, "\n")
		pattern := strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(key, "credential."), "helper"), ".")
		switch {
		case !query.MayMatch(pattern):
		case value == "":
			others = nil
		case !ours.MatchString(value):
			others = append(others, key)
		}
	}
	if others == nil {
		return nil
	}
	return &cli.Failure{
		Err: fmt.Errorf("git would give the secret to another helper too, which is configured behind keyhatch: %s", strings.Join(others, ", ")),
		Hint: "keyhatch credential install puts keyhatch behind them; where that does not help: " +
			"git config --show-origin --get-regexp 'credential.*helper'",
	}
}

// configurable sees that git's configuration of this user is a file: git puts a
// new one in the place of whatever there is, and for root that may be a device.
func configurable(ctx context.Context) error {
	if path := os.Getenv("GIT_CONFIG_GLOBAL"); path != "" {
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			return &cli.Failure{Err: fmt.Errorf("GIT_CONFIG_GLOBAL is %s, which is no file", path), Hint: "unset it, or name a file"}
		}
	}
	return nil
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
