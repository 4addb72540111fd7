package endpoint

import (
	"io"
	"sync"

	"github.com/keyhatch/keyhatch/broker/wire"
)

// A workspace is the memory that a session needs for its requests. An idle session has no
// workspace, so that many idle connections need little memory. But an idle session with its own
// memory for request lines (Handler.Grow) keeps its workspace.
type workspace struct {
	lines   *wire.Reader
	maxLine int
	batch   batch
}

// workspaces contains the workspaces that no session uses now. These workspaces contain no
// requests and no replies.
var workspaces sync.Pool

// newWorkspace returns a workspace that reads lines from source. grow can be nil, as described
// at wire.NewReader.
func newWorkspace(source io.Reader, maxLine int, grow func([]byte, int) ([]byte, error)) *workspace {
	if grow == nil {
		if w, ok := workspaces.Get().(*workspace); ok && w.maxLine == maxLine {
			w.lines.SetSource(source)
			return w
		}
	}
	return &workspace{lines: wire.NewReader(source, maxLine, grow), maxLine: maxLine}
}

// release makes the workspace available for other sessions. Call it only if the workspace
// contains no unread line and no reply, and if newWorkspace was called without grow.
func (w *workspace) release() {
	w.lines.SetSource(nil) // so that the workspace does not refer to the session
	workspaces.Put(w)
}
