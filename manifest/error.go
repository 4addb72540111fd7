package manifest

import (
	"fmt"

	"gopkg.in/yaml.v3"
)

// An Error is an error in a manifest or in a declaration.
type Error struct {
	Line int    // 0 if the error is about the whole file, or if the line is not known
	Rule string // the rule that the file violates

	ruleWithoutText string
	inDeclaration   bool // whether the error is in a declaration, and not in a manifest
}

func (e *Error) Error() string { return e.format(e.Rule) }

// WithoutText returns the message of the error with (not shown) instead of each text that can
// come from the file, because such a text can be the name of a secret.
func (e *Error) WithoutText() string { return e.format(e.ruleWithoutText) }

func (e *Error) format(rule string) string {
	switch {
	case e.inDeclaration && e.Line == 0:
		return rule
	case e.inDeclaration:
		return fmt.Sprintf("line %d: %s", e.Line, rule)
	case e.Line == 0:
		return "manifest: " + rule
	}
	return fmt.Sprintf("manifest line %d: %s", e.Line, rule)
}

// errorAt returns an Error for the line of node. If node is nil, the error is about the whole
// file. Error.WithoutText shows only those args that are an int or a constant.
func errorAt(node *yaml.Node, format string, args ...any) error {
	line := 0
	if node != nil {
		line = node.Line
	}
	return newError(line, format, args...)
}

// A constant is a text for an error message. The text never comes from the file, so
// Error.WithoutText may show it.
type constant string

func newError(line int, format string, args ...any) error {
	withoutText := make([]any, len(args))
	for i, arg := range args {
		switch arg.(type) {
		case int, constant:
			withoutText[i] = arg
		default:
			withoutText[i] = "(not shown)"
		}
	}
	return &Error{Line: line, Rule: fmt.Sprintf(format, args...), ruleWithoutText: fmt.Sprintf(format, withoutText...)}
}
