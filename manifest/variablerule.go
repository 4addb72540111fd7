package manifest

import (
	"fmt"
	"path"
	"strings"
)

// A variableRule defines how a program uses the variables whose names match a pattern.
type variableRule struct {
	pattern string // has the syntax of path.Match, and begins with a letter, _, or *
	program string // the program that uses the variable; "" if the variable is ordinary
	use     variableUse
}

// A variableUse is how a program uses a variable. It is the format string of a sentence. The
// first argument is the program, and the second argument is the variable.
type variableUse string

const (
	runs       variableUse = "%[1]s runs the value of %[2]s as a command"
	loads      variableUse = "%[1]s loads code from the place that %[2]s names"
	obeys      variableUse = "%[1]s takes options from %[2]s"
	configures variableUse = "%[1]s reads settings from the place that %[2]s names"
	finds      variableUse = "%[1]s runs programs from the directory that %[2]s names"
	connects   variableUse = "%[1]s connects to the server that %[2]s names"
	trusts     variableUse = "%[2]s changes which servers %[1]s trusts"
	writes     variableUse = "%[1]s writes to the place that %[2]s names"
	ordinary   variableUse = "" // the variable is not dangerous, although a more general pattern matches its name
)

// sentence returns why the variable is dangerous, or "" if the variable is ordinary. If the
// name has more than 40 bytes, the sentence contains the pattern instead of the name, so that
// the sentence cannot be long.
func (r variableRule) sentence(name string) string {
	if r.use == ordinary {
		return ""
	}
	if len(name) > 40 {
		name = r.pattern
	}
	return fmt.Sprintf(string(r.use), r.program, name)
}

// findRule returns the rule whose pattern matches name. If several patterns match, it returns
// the rule whose pattern has the most characters apart from *.
func findRule(rules []variableRule, name string) (found variableRule, ok bool) {
	literals := func(pattern string) int { return len(pattern) - strings.Count(pattern, "*") }
	for _, rule := range rules {
		// Compare the first letter before path.Match, which is much slower. Most patterns
		// begin with another letter than the name.
		if first := rule.pattern[:1]; first != "*" && !strings.HasPrefix(name, first) {
			continue
		}
		if matched, _ := path.Match(rule.pattern, name); !matched {
			continue
		}
		if !ok || literals(rule.pattern) > literals(found.pattern) {
			found, ok = rule, true
		}
	}
	return found, ok
}
