package endpoint

import (
	"io"
	"sync"

	"github.com/keyhatch/keyhatch/broker/wire"
)

// A workspace is the memory that a session needs for its requests. An idle session has no
// workspace, so that many idle connections need little memory. Only a session with its
// own memory for request lines (Handler.Grow) keeps its workspace.
type workspace struct {
	lines   *wire.Reader
	maxLine int
	source  io.Reader // from which lines reads
	batch   batch
}

// workspaces contains the workspaces of idle sessions. These workspaces contain no requests
// and no replies.
var workspaces sync.Pool

// newWorkspace returns a workspace that reads lines from source. grow can be nil, as described
// at wire.NewReader.
func newWorkspace(source io.Reader, maxLine int, grow func([]byte, int) ([]byte, error)) *workspace {
	if grow == nil {
		if w, ok := workspaces.Get().(*workspace); ok && w.maxLine == maxLine {
			w.source = source
			return w
		}
	}
	w := &workspace{maxLine: maxLine, source: source}
	w.lines = wire.NewReader(w, maxLine, grow)
	return w
}

// Read reads from the current source.
func (w *workspace) Read(p []byte) (int, error) { return w.source.Read(p) }

// release makes the workspace available for other sessions. All lines must have been read, and
// the batch must be empty. grow must have been nil.
func (w *workspace) release() {
	w.source = nil
	workspaces.Put(w)
}
