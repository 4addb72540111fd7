package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/keyhatch/keyhatch/schema"
)

// memoryDir is the directory for rendered files. Tests use another directory.
var memoryDir = devcontainer.MemoryDir()

// planOptions selects the secrets that a command fetches. It also selects whether the secrets
// become environment variables or files.
type planOptions struct {
	only            []schema.SecretName // nil means all secrets that the manifest allows
	wait            time.Duration
	withVariables   bool     // set environment variables
	baseEnvironment []string // the environment to which the variables are added
	withFiles       bool     // render the files that the manifest declares
}

// assign assigns the secrets of the approved manifest to files and variables. If a secret is
// assigned to a file, it gets no variable.
func (o planOptions) assign(info schema.InfoResponse) (files []devcontainer.File, variables devcontainer.Variables, err error) {
	if o.withFiles {
		if files, err = devcontainer.DeclaredFiles(info, o.only, os.Getenv("HOME")); err != nil {
			return nil, nil, err
		}
	}
	if o.withVariables {
		only := slices.DeleteFunc(slices.Clone(o.only), func(name schema.SecretName) bool {
			return slices.ContainsFunc(files, func(f devcontainer.File) bool { return f.Name == name })
		})
		variables, err = devcontainer.AssignVariables(info, only)
	}
	return files, variables, err
}

// A plan lists the secrets to fetch, and the files and variables for these secrets. newPlan
// and refresh create these lists from the manifest that is approved at that time.
type plan struct {
	project       *client.Project
	options       planOptions
	remainingWait time.Duration // the part of options.wait that newPlan did not use
	rendering     devcontainer.Rendering
	files         []devcontainer.File
	variables     devcontainer.Variables
}

// newPlan checks the broker's protocol version and makes a plan from the approved
// manifest. It fetches no secret. If the broker is unreachable, newPlan waits for the broker,
// for at most options.wait.
func newPlan(ctx context.Context, project *client.Project, options planOptions) (*plan, error) {
	started := time.Now()
	if err := checkProtocol(ctx, project, options.wait); err != nil {
		return nil, err
	}
	info, err := project.Info(ctx, max(options.wait-time.Since(started), 0))
	if err != nil {
		return nil, err
	}
	p := &plan{
		project: project, options: options,
		remainingWait: max(options.wait-time.Since(started), 0),
		rendering:     devcontainer.NewRendering(memoryDir, info.Project),
	}
	p.files, p.variables, err = options.assign(info)
	return p, err
}

// refresh updates the plan from the currently approved manifest, because a reload may
// have changed the manifest.
func (p *plan) refresh(ctx context.Context) error {
	info, err := p.project.Info(ctx, 0)
	if err != nil {
		return err
	}
	p.files, p.variables, err = p.options.assign(info)
	return err
}

// fetchAndRender fetches all secrets of the plan from one snapshot and renders the files. It
// returns the environment with the secrets. filesChanged reports whether a file or a link
// changed or was removed, even if fetchAndRender returns an error.
func (p *plan) fetchAndRender(ctx context.Context, wait time.Duration) (environment []string, filesChanged bool, err error) {
	names := p.variables.SecretNames()
	for _, f := range p.files {
		names = append(names, f.Name)
	}
	values, err := devcontainer.Fetch(ctx, p.project, names, wait)
	if err != nil {
		return nil, false, err
	}
	if environment, err = p.variables.Environment(values, p.options.baseEnvironment); err != nil {
		return nil, false, err
	}
	if filesChanged, err = p.rendering.Render(p.files, values); err != nil {
		return nil, filesChanged, err
	}
	if p.options.withFiles && p.options.only == nil {
		// Remove the files that the manifest no longer declares, because they may
		// contain secrets that the manifest no longer allows.
		var removed bool
		removed, err = p.rendering.Prune(p.files)
		filesChanged = filesChanged || removed
	}
	return environment, filesChanged, err
}

// watch fetches the secrets, renders the files, and calls onUpdate after changes of the
// secrets or the manifest. One update can handle several changes. If the broker reports a rate
// limit, watch repeats the update later. If an update fails for another reason, for example
// because a secret is missing, watch calls onError and waits for the next change. filesChanged
// reports whether a file or a link changed since the last update that did not fail. watch
// returns when ctx is canceled, or when client.Project.Watch returns an error.
func (p *plan) watch(ctx context.Context, onError func(err error, filesChanged bool), onUpdate func(environment []string, filesChanged bool)) error {
	filesChanged := false
	return p.project.Watch(ctx, func(schema.ChangedEvent) {
		for {
			var environment []string
			err := p.refresh(ctx)
			if err == nil {
				var changed bool
				environment, changed, err = p.fetchAndRender(ctx, 0)
				filesChanged = filesChanged || changed
			}
			refused, _ := errors.AsType[*client.Error](err)
			switch {
			case ctx.Err() != nil:
			case refused != nil && refused.Code == schema.CodeRateLimited:
				select {
				case <-ctx.Done():
				case <-time.After(max(refused.RetryAfter, time.Second)):
				}
				continue
			case err != nil:
				onError(err, filesChanged)
			default:
				onUpdate(environment, filesChanged)
				filesChanged = false
			}
			return
		}
	})
}
