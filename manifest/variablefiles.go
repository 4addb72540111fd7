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
	// secretVariable matches a line that sets a variable to exactly the secret, or to one
	// field of the secret.
	secretVariable = regexp.MustCompile(`^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(?:\{\{[^{}]*\}\}|'\{\{[^{}]*\}\}'|"\{\{[^{}]*\}\}")[ \t]*$`)
	anyVariable    = regexp.MustCompile(`^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=`)
	// harmlessComment matches an empty line, or a comment that contains neither = nor a
	// placeholder. Some scripts pass all words of the file to the command export, which sets
	// each variable in the words, even in a comment. If the value in a placeholder ends in a
	// line break, the rest of the comment becomes a line that a shell runs.
	harmlessComment = regexp.MustCompile(`^[ \t]*(#[\t -#%-<>-\[\]-_a-z|~]*)?$`)
)

// variableFileDanger returns why the template of a file of variables is dangerous, or "". A shell
// can read such a file, so each line must set a variable or be a harmless comment. A variable with
// a dangerous name is dangerous. A variable is also dangerous if its value contains text of the
// template, because a program may run the value, and no table can contain all variables that
// programs run.
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

// shortList joins the first four names of a list, and shortens long names, so that the result
// cannot be long.
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
