package manifest

import (
	"fmt"

	"gopkg.in/yaml.v3"
)

// An Error names the line and the rule that a manifest breaks.
type Error struct {
	Line int // 0 if the error is about the whole file
	Rule string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return "manifest: " + e.Rule
	}
	return fmt.Sprintf("manifest line %d: %s", e.Line, e.Rule)
}

// errorAt returns an Error at the line of node. A nil node stands for the whole
// file.
func errorAt(node *yaml.Node, format string, args ...any) error {
	line := 0
	if node != nil {
		line = node.Line
	}
	return &Error{line, fmt.Sprintf(format, args...)}
}
