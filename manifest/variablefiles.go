package manifest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// variableFiles are the files from which tools and shells read variables.
var variableFiles = []string{"*.env", ".env", ".env.*"}

var (
	// A line that gives the secret, or a field of the secret, to a variable.
	secretVariable = regexp.MustCompile(`^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(?:\{\{[^{}]*\}\}|'\{\{[^{}]*\}\}'|"\{\{[^{}]*\}\}")[ \t]*$`)
	anyVariable    = regexp.MustCompile(`^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=`)
	// Some scripts pass the whole file to export, so a comment must not contain a variable.
	// A comment must not contain a placeholder either: if the value ends in a line break, the
	// rest of the comment becomes a line of its own.
	harmlessComment = regexp.MustCompile(`^[ \t]*(#[\t -#%-<>-\[\]-_a-z|~]*)?$`)
)

// variableFileDanger returns why the template of a file of variables is dangerous, or "". A
// shell can read such a file, so a line that is neither a variable nor a harmless comment is
// dangerous. A variable is dangerous if its name is dangerous, or if the template contains a
// part of its value, because no table can contain all variables whose value runs a command.
func variableFileDanger(template string) string {
	var dangerous, others []string
	for line := range strings.SplitSeq(template, "\n") {
		if harmlessComment.MatchString(line) {
			continue
		}
		match := anyVariable.FindStringSubmatch(line)
		if match == nil {
			return "the template contains more than variables: a shell that reads the file may run the other lines"
		}
		name := match[1]
		if variableDanger(name) != "" {
			dangerous = append(dangerous, name)
		} else if !secretVariable.MatchString(line) {
			others = append(others, name)
		}
	}
	names := slices.Concat(dangerous, others)
	if len(names) == 0 {
		return ""
	}
	return "the template sets dangerous variables, or adds text to the values of variables: " + shortList(names)
}

// shortList joins the first names of a list. The length of the result is limited.
func shortList(names []string) string {
	var short []string
	for i, name := range names {
		if i == 4 {
			short = append(short, fmt.Sprintf("and %d more", len(names)-i))
			break
		}
		if len(name) > 40 {
			name = name[:40] + "..."
		}
		short = append(short, name)
	}
	return strings.Join(short, ", ")
}
