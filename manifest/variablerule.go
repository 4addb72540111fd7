package manifest

import (
	"fmt"
	"path"
	"strings"
)

// A variableRule defines how a program uses the variables whose names match a pattern.
type variableRule struct {
	pattern string // as in path.Match; it begins with a letter, _, or *
	program string // the program that uses the variable; "" if the variable is ordinary
	use     variableUse
}

// A variableUse is how a program uses a variable. It is the format of a sentence about the
// program and the variable, in this order.
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
	ordinary   variableUse = "" // an exception from a rule with a more general pattern
)

// sentence returns why the variable is dangerous. The length of the sentence is limited: if
// the name is long, the sentence contains the pattern instead of the name.
func (r variableRule) sentence(name string) string {
	if r.use == ordinary {
		return ""
	}
	if len(name) > 40 {
		name = r.pattern
	}
	return fmt.Sprintf(string(r.use), r.program, name)
}

// findRule returns the rule whose pattern is the most specific one that matches name.
func findRule(rules []variableRule, name string) (found variableRule, ok bool) {
	literals := func(pattern string) int { return len(pattern) - strings.Count(pattern, "*") }
	for _, rule := range rules {
		// Most patterns begin with another letter than the name, and path.Match is much slower.
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
