package manifest

import (
	"fmt"

	"gopkg.in/yaml.v3"
)

// An Error is an error in a manifest.
type Error struct {
	Line int    // 0 if the error is about the whole file
	Rule string // the rule that the manifest violates
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return "manifest: " + e.Rule
	}
	return fmt.Sprintf("manifest line %d: %s", e.Line, e.Rule)
}

// errorAt returns an Error for the line of node. If node is nil, the error is about
// the whole file.
func errorAt(node *yaml.Node, format string, args ...any) error {
	line := 0
	if node != nil {
		line = node.Line
	}
	return &Error{line, fmt.Sprintf(format, args...)}
}
