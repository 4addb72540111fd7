package manifest

import (
	"path"
	"slices"
	"strings"
)

// comparablePath returns the path that stands for a path in comparisons with patterns or with other
// paths. The directory /var/run is a link to /run in almost every container.
func comparablePath(p string) string {
	p = path.Clean(p)
	if rest, ok := strings.CutPrefix(p, "/var/run"); ok && (rest == "" || rest[0] == '/') {
		return "/run" + rest
	}
	return p
}

// pathElements returns the elements of a path, so that patterns can match them. The elements are in
// lower case, like the patterns.
func pathElements(p string) []string { return strings.Split(comparablePath(strings.ToLower(p)), "/") }

// matchesAny reports whether the elements of a clean path match one of the patterns.
func matchesAny(patterns []string, elements []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return matchesPath(pattern, elements) })
}

// matchesPath reports whether the elements of a clean path match a pattern of a fileRule.
// The first element of an absolute path is empty, and so is the first element of an
// absolute pattern. No other element is empty.
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
