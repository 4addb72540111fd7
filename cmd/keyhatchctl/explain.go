package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func explainCommand(o *globalOptions) *cobra.Command {
	var uid uint32
	c := &cobra.Command{
		Use:   "explain PROJECT NAME",
		Short: "Explain whether a project can get a secret",
		Long: `explain shows whether a get of the secret NAME would succeed in the containers of a
project. explain checks whether the project is registered, whether its socket is in
place and has the right mode, whether the uid of the caller is allowed, whether the
approved manifest allows the secret, whether the broker has the secret, and whether
the project is below its rate limit and below its limit of connections. If the
broker requires audit, explain also checks whether the broker can write its audit
log. explain also compares the manifest in the project's directory with the approved
manifest. For each problem, explain prints how to fix the problem. explain never
shows the value of the secret, and does not change anything.

PROJECT is the name of a project or the path of its directory. PROJECT is a path if
it contains a slash, for example ./api, or if it is "." or "..". Without --uid,
explain assumes that the caller has the uid of the directory's owner. If you cannot
see the directory, explain uses the uid of the project's registration.

explain does not check whether a container can reach the socket: the container must
mount the socket's directory, and must have permission to use this directory. To
check whether a container can reach the socket, run keyhatch doctor in the container.

The exit code of explain is 0 if the get would succeed, and 1 if the get would fail.`,
		Example: `  keyhatchctl explain api NPM_TOKEN
  keyhatchctl explain api NPM_TOKEN --uid 1000
  keyhatchctl --json explain api NPM_TOKEN | jq -r '.checks[] | select(.ok | not).fix'`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if !schema.ValidSecretName(args[1]) { // do not print the argument, because it may be the value of a secret
				return cli.UsageErrorf("NAME must be the name of a secret, which matches %s", schema.SecretNamePattern)
			}
			var e explanation
			if err := o.withAdmin(c.Context(), func(admin *client.Admin) (err error) {
				request := explainRequest{project: args[0], secret: schema.SecretName(args[1])}
				if c.Flags().Changed("uid") {
					request.uid = &uid
				}
				e, err = explain(c.Context(), admin, o, request)
				return err
			}); err != nil {
				return err
			}
			return e.print(c.OutOrStdout(), o.asJSON)
		},
	}
	c.Flags().Uint32Var(&uid, "uid", 0, "the `UID` of the process that gets the secret (default: the owner of the project's directory)")
	return c
}

type explainRequest struct {
	project string // the name or the path of a project
	secret  schema.SecretName
	uid     *uint32 // the uid of the caller; nil for the owner of the project's directory
}

// An explanation is the result of all checks of a get.
type explanation struct {
	OK      bool              `json:"ok"`      // the get would succeed
	Project string            `json:"project"` // the name of the project, or the argument if no project was found
	Secret  schema.SecretName `json:"secret"`
	UID     *uint32           `json:"uid,omitzero"` // the uid of the caller; nil if the broker does not serve the project
	Checks  []explainCheck    `json:"checks"`
}

// An explainCheck is the result of one check. If the check found a problem but OK is true, the
// problem does not prevent the get.
type explainCheck struct {
	OK bool `json:"ok"`
	cli.Finding
}

// add adds the result of a check. If the check found a problem, the get would fail.
func (e *explanation) add(check string, f cli.Finding) {
	f.Check = check
	e.Checks = append(e.Checks, explainCheck{f.Problem == "", f})
	e.OK = e.OK && f.Problem == ""
}

// addNote adds the result of a check. If the check found a problem, the get can still succeed.
func (e *explanation) addNote(check string, f cli.Finding) {
	f.Check = check
	e.Checks = append(e.Checks, explainCheck{true, f})
}

func (e *explanation) print(w io.Writer, asJSON bool) error {
	get := fmt.Sprintf("get of %s in project %s", e.Secret, cli.PrintableWord(e.Project))
	if e.UID != nil {
		get += fmt.Sprintf(" by uid %d", *e.UID)
	}
	if asJSON {
		if err := cli.PrintJSON(w, e); err != nil {
			return err
		}
	} else {
		for _, check := range e.Checks {
			label := "BAD"
			if check.OK {
				label = "note"
			}
			check.Print(w, label)
		}
		if e.OK {
			fmt.Fprintf(w, "a %s would succeed\n", get)
		}
	}
	if !e.OK {
		return fmt.Errorf("a %s would fail", get)
	}
	return nil
}

// explain makes all checks. If no project is registered with this name or path, or if the broker
// does not serve the project, explain makes only the check "registered".
func explain(ctx context.Context, admin *client.Admin, o *globalOptions, request explainRequest) (explanation, error) {
	e := explanation{OK: true, Project: request.project, Secret: request.secret}
	p, err := findProject(ctx, admin, o, request.project, "explain")
	if failure, ok := errors.AsType[*cli.Error](err); ok {
		problem := string(schema.CodeProjectUnknown)
		if _, ok := errors.AsType[*notServedError](err); ok {
			problem = problemNotServed
		}
		fix := failure.Hint
		if _, ok := errors.AsType[*replacedPathError](err); ok {
			problem, fix = problemPathReplaced, fix+" "+string(request.secret)
		}
		if dir := "./" + request.project; strings.HasSuffix(fix, ": "+cli.ShellQuote(dir)) {
			fix = strings.TrimSuffix(fix, cli.ShellQuote(dir)) + o.command("explain", dir, string(request.secret))
		}
		e.add("registered", cli.Finding{Problem: problem, Detail: failure.Error(), Fix: fix})
		return e, nil
	}
	if err != nil {
		return explanation{}, err
	}
	status, err := admin.Status(ctx)
	if err != nil {
		return explanation{}, err
	}
	e.Project, e.UID = string(p.Name), request.uid
	if e.UID == nil {
		if e.UID, err = usualCaller(p); err != nil {
			return explanation{}, err
		}
	}
	result, err := admin.Explain(ctx, schema.ExplainRequest{Name: p.Name, Secret: request.secret, UID: *e.UID})
	if err != nil {
		return explanation{}, err
	}
	again := []string{"explain", string(p.Name), string(request.secret)}
	if request.uid != nil {
		again = append(again, "--uid", fmt.Sprint(*request.uid))
	}
	trees := newTreeReader(o, status)
	defer trees.close()
	denied, manifest := trees.explainManifest(p, request.secret, o)
	x := explainer{o, p, status, request.secret, *e.UID, o.command(again...), denied, manifest}
	e.add("registered", x.checkServed(result))
	if result.Unserved {
		return e, nil
	}
	e.add("socket", x.checkSocket(result))
	e.add("uid", x.checkUID(result))
	e.add("allowlist", x.checkAllowlist(result))
	e.addNote("manifest", x.manifest)
	e.add("secrets", x.checkLoaded(result))
	if result.SecretsLoaded {
		e.add("secret", x.checkPresent(result))
	}
	e.add("rate limit", x.checkRateLimit(result))
	e.add("connections", x.checkConnections(result))
	e.add("audit", x.checkAudit(result))
	return e, nil
}

// usualCaller returns the uid that explain uses without --uid: the owner of the project's
// directory. If this user cannot see the directory, usualCaller returns the only uid of the
// project's registration, or root's uid if the registration has no uid. It returns an error if the
// registration has several uids.
func usualCaller(p schema.ProjectStatus) (*uint32, error) {
	info, err := os.Stat(p.ProjectPath)
	if err == nil {
		uid := info.Sys().(*syscall.Stat_t).Uid
		return &uid, nil
	}
	switch len(p.AllowUIDs) {
	case 0:
		return new(uint32), nil
	case 1:
		return &p.AllowUIDs[0], nil
	}
	return nil, &cli.Error{
		Err:  fmt.Errorf("cannot find the owner of the project's directory: %w", err),
		Hint: "choose the uid of the process that gets the secret with --uid",
	}
}
