package store

import "fmt"

// errorAtLine returns an error whose text begins with the line number.
func errorAtLine(line int, format string, args ...any) error {
	return fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
}
