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

// A plan is what is to be fetched, and where it goes.
type plan struct {
	project *client.Project
	info    schema.InfoResponse
	only    []schema.SecretName
	left    time.Duration // of the wait

	variables devcontainer.Variables
	base      []string // the environment around them
	files     []devcontainer.File
	renders   bool
	decide    func() error // sets variables and files by info
	rendering devcontainer.Rendering
}

// newPlan asks the broker who it is and what there may be. Nothing is injected
// yet.
func newPlan(ctx context.Context, project *client.Project, o choice, only []schema.SecretName) (*plan, error) {
	started := time.Now()
	if err := sameProtocol(ctx, project, o.wait); err != nil {
		return nil, err
	}
	info, err := project.Info(ctx)
	if err != nil {
		return nil, err
	}
	return &plan{
		project: project, info: info, only: only,
		left:      max(o.wait-time.Since(started), 0),
		rendering: devcontainer.NewRendering(memoryDir, info.Project),
	}, nil
}

// memoryDir is where files are rendered; a test's is its own.
var memoryDir = devcontainer.MemoryDir()

// inject has the plan set variables in base, render the manifest's files, or
// both. What is a file already is not a variable too.
func (p *plan) inject(variables, files bool, base []string) (err error) {
	p.base, p.decide = base, func() (err error) {
		if files {
			if p.files, err = devcontainer.Files(p.info, p.only, os.Getenv("HOME")); err != nil {
				return err
			}
		}
		if !variables {
			return nil
		}
		only := slices.DeleteFunc(slices.Clone(p.only), func(name schema.SecretName) bool {
			return slices.ContainsFunc(p.files, func(f devcontainer.File) bool { return f.Name == name })
		})
		p.variables, err = devcontainer.Choose(p.info, only)
		return err
	}
	p.renders = files
	return p.decide()
}

// again asks what is approved now: a reload may have changed it.
func (p *plan) again(ctx context.Context) (err error) {
	if p.info, err = p.project.Info(ctx); err != nil {
		return err
	}
	return p.decide()
}

// fetch fetches it all, of one snapshot, renders the files and returns the
// environment, and whether a file is new.
func (p *plan) fetch(ctx context.Context, wait time.Duration) (environment []string, rendered bool, err error) {
	names := p.variables.Names()
	for _, f := range p.files {
		names = append(names, f.Name)
	}
	values, err := devcontainer.Fetch(ctx, p.project, names, wait)
	if err != nil {
		return nil, false, err
	}
	if environment, err = p.variables.Environment(values, p.base); err != nil {
		return nil, false, err
	}
	if rendered, err = p.rendering.Render(p.files, values); err != nil {
		return nil, false, err
	}
	if p.renders && p.only == nil {
		// A file that is no longer declared may hold what was taken away.
		err = p.rendering.Keep(p.files)
	}
	return environment, rendered, err
}

// follow calls take with each new environment, and whether a file is new, until
// ctx ends. What cannot be had is said and left as it was: a later change may
// mend it.
func (p *plan) follow(ctx context.Context, say func(error), take func(environment []string, rendered bool)) {
	err := p.project.Watch(ctx, func(schema.ChangedEvent) {
		for {
			var environment []string
			var rendered bool
			err := p.again(ctx)
			if err == nil {
				environment, rendered, err = p.fetch(ctx, 0)
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
				say(err)
			default:
				take(environment, rendered)
			}
			return
		}
	})
	if ctx.Err() == nil {
		say(err)
	}
}
