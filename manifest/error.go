package manifest

import (
	"fmt"

	"gopkg.in/yaml.v3"
)

// An Error says which rule a manifest breaks, and where.
type Error struct {
	Line int // 0 where it is about the file as a whole
	Rule string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return "manifest: " + e.Rule
	}
	return fmt.Sprintf("manifest line %d: %s", e.Line, e.Rule)
}

func wrong(node *yaml.Node, format string, args ...any) error {
	line := 0
	if node != nil {
		line = node.Line
	}
	return &Error{line, fmt.Sprintf(format, args...)}
}
