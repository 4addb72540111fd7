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

// keyhatchHelperPattern matches the usual values of git's setting credential.helper that
// run keyhatch. The last alternative is the form that installGit writes.
var keyhatchHelperPattern = regexp.MustCompile(`^(keyhatch|/.*/git-credential-keyhatch|!.*keyhatch.* credential git)$`)

// checkNoOtherHelper returns an error if another helper for the query is turned on. git sends
// a working login to all of its helpers, so that these helpers can store the login. An empty
// helper value turns off only the helpers before this value. It does not turn off a helper
// that an editor configures after keyhatch (observed with git 2.39).
func checkNoOtherHelper(ctx context.Context, query credential.GitQuery) error {
	cmd := exec.CommandContext(ctx, "git", "config", "-z", "--get-regexp", `^credential\.(.*\.)?helper$`)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return nil // no helper is configured, so this process was not started by git
	}
	if err != nil {
		return fmt.Errorf("cannot list git's credential helpers: %w %s", err, strings.TrimSpace(stderr.String()))
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
		Err: fmt.Errorf("refusing to answer git: git would also give the secret to another helper: %s", strings.Join(otherHelpers, ", ")),
		Hint: "run keyhatch credential install; if this does not help, find the other helper with " +
			"git config --show-origin --get-regexp 'credential.*helper'",
	}
}

// checkGitConfigFile returns an error if GIT_CONFIG_GLOBAL is the path of an existing file
// that is not a regular file. To change its configuration, git replaces the file. If git
// runs as root, it would replace even a device such as /dev/null.
func checkGitConfigFile() error {
	if path := os.Getenv("GIT_CONFIG_GLOBAL"); path != "" {
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			return &cli.Error{Err: fmt.Errorf("cannot change git's configuration: GIT_CONFIG_GLOBAL is %s, which is not a regular file", path), Hint: "unset GIT_CONFIG_GLOBAL"}
		}
	}
	return nil
}

// runGitConfig runs git config --global with the arguments args.
func runGitConfig(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", append([]string{"config", "--global"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("git config %s failed: %w %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return nil
}
