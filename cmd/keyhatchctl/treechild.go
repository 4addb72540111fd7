package main

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// treeChildName is argument 0 of a child process, by which the process knows that it is a child
// process.
const treeChildName = "keyhatchctl-trees"

const (
	treeStartTimeout = 10 * time.Second // maximum time until a new child process is ready
	treeTimeout      = 2 * time.Second  // maximum time of each task
)

// errTreeBlocked means that a task did not end within treeTimeout, or that a new child process
// was not ready within treeStartTimeout.
var errTreeBlocked = errors.New("the directory does not answer; a container may be blocking it")

// A treeSetup is the first message to a child process.
type treeSetup struct {
	Status            schema.StatusResponse
	Socket, TokenFile string // the fields of globalOptions that hints contain
}

// A treeTask is one task that keyhatchctl sends to a child process. A task uses the directories
// of one project.
type treeTask struct {
	Kind    treeTaskKind
	Project schema.ProjectStatus
	Missing []schema.SecretName   // for taskCheckProject
	Problem schema.ProjectProblem // for taskNotRestoredFix
	Path    string                // for taskReadManifest and taskCheckSocketDir
	Secret  schema.SecretName     // for taskExplainManifest
}

type treeTaskKind int

const (
	taskManifestState treeTaskKind = iota
	taskCheckProject
	taskNotRestoredFix
	taskReadManifest
	taskCheckSocketDir
	taskExplainManifest
)

// A treeResult is the result of a task. Each kind of task sets only some of the fields.
type treeResult struct {
	Text     string
	Findings []cli.Finding
	File     manifest.File
	Err      string // the error of taskReadManifest, or ""
	NotFound bool   // the error is manifest.ErrNotFound
}

// isTreeChild reports whether this process is a child process of keyhatchctl. The main function
// and TestMain must then call runTreeChild and return.
func isTreeChild() bool { return len(os.Args) == 1 && os.Args[0] == treeChildName }

// runTreeChild runs the tasks that keyhatchctl sends, until keyhatchctl closes the pipe. run runs
// one task.
func runTreeChild(run func(treeTask, treeSetup) treeResult) {
	in, out := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	var setup treeSetup
	if in.Decode(&setup) != nil || out.Encode(treeResult{}) != nil { // the first result means that this process is ready
		return
	}
	for {
		var task treeTask
		if in.Decode(&task) != nil || out.Encode(run(task, setup)) != nil {
			return
		}
	}
}

// A treeChild is a child process that runs one task after the other.
type treeChild struct {
	cmd      *exec.Cmd
	in, out  *os.File
	requests *gob.Encoder
	results  *gob.Decoder
}

// startTreeChild starts a child process and waits until it is ready. The child process does not
// inherit the standard output of keyhatchctl. Otherwise, a child process that cannot be killed
// would keep this output open, and a program that reads it would wait forever.
func startTreeChild(setup treeSetup) (*treeChild, error) {
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirIn.Close()
	out, theirOut, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	defer theirOut.Close()
	c := &treeChild{
		cmd: &exec.Cmd{Path: "/proc/self/exe", Args: []string{treeChildName}, Stdin: theirIn, Stdout: theirOut},
		in:  in, out: out, requests: gob.NewEncoder(in), results: gob.NewDecoder(out),
	}
	if err := c.cmd.Start(); err != nil {
		in.Close()
		out.Close()
		return nil, fmt.Errorf("starting a child process: %w", err)
	}
	go c.cmd.Wait() // the goroutine ends when the child process has ended
	if _, err := c.exchange(setup, treeStartTimeout); err != nil {
		c.kill()
		return nil, fmt.Errorf("starting a child process: %w", err)
	}
	return c, nil
}

// exchange sends a message to the child process and returns the answer. After an error, the child
// process cannot be used any more.
func (c *treeChild) exchange(message any, timeout time.Duration) (result treeResult, err error) {
	deadline := time.Now().Add(timeout)
	c.in.SetDeadline(deadline)
	c.out.SetDeadline(deadline)
	if err = c.requests.Encode(message); err == nil {
		err = c.results.Decode(&result)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errTreeBlocked
	}
	return result, err
}

// kill kills the child process, but does not wait for its end.
func (c *treeChild) kill() {
	c.cmd.Process.Kill()
	c.end()
}

// end closes the pipes to the child process. A child process without a task then ends.
func (c *treeChild) end() {
	c.in.Close()
	c.out.Close()
}
