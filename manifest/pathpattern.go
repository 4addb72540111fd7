package manifest

import (
	"path"
	"strings"
)

// matchesPath reports whether the elements of a path match a pattern of a fileRule.
func matchesPath(pattern string, elements []string) bool {
	wanted := strings.Split(pattern, "/")
	last := len(wanted) - 1
	anyRest := wanted[last] == "**"
	if anyRest {
		wanted = wanted[:last]
	}
	first, latest := 0, len(elements)-len(wanted)
	if !anyRest {
		first = latest
	}
	if wanted[0] == "" { // an absolute pattern
		latest = min(latest, 0)
	}
	for start := max(first, 0); start <= latest; start++ {
		if matchesElements(wanted, elements[start:]) {
			return true
		}
	}
	return false
}

func matchesElements(wanted, elements []string) bool {
	for i, pattern := range wanted {
		if matched, _ := path.Match(pattern, elements[i]); !matched {
			return false
		}
	}
	return true
}
