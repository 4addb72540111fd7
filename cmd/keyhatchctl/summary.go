package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
)

// maxSummaryItems is the maximum number of secrets, uids, and dangerous changes in a summary.
const maxSummaryItems = 10

// printSummary prints the most important parts of a proposal again, in a few lines. The
// caller prints the changes before the summary. A terminal shows only the last lines, and a
// manifest can contain templates with thousands of lines.
func (p proposal) printSummary(w io.Writer) {
	fmt.Fprintf(w, "summary of project %s in %s:\n  %s\n", p.request.Name, cli.Printable(p.request.ProjectPath), cli.Plural(len(p.changes), "change"))
	var added, dangerous []string
	for _, c := range p.changes {
		if secret, ok := strings.CutPrefix(c.Subject, "secret "); ok && c.Old == "" {
			added = append(added, secret)
		}
		if c.Danger != "" {
			dangerous = append(dangerous, c.Subject+": dangerous: "+c.Danger)
		}
	}
	printList(w, "added secrets", added)
	printList(w, "allowed uids", uidTexts(p.request.AllowUIDs))
	for _, text := range dangerous[:min(len(dangerous), maxSummaryItems)] {
		fmt.Fprintf(w, "! %s\n", text)
	}
	if more := len(dangerous) - maxSummaryItems; more > 0 {
		fmt.Fprintf(w, "! and %s\n", cli.Plural(more, "more dangerous change"))
	}
}

// printList prints the first items of a list in one line. It prints nothing for an empty list.
func printList(w io.Writer, label string, items []string) {
	if more := len(items) - maxSummaryItems; more > 0 {
		items = append(items[:maxSummaryItems:maxSummaryItems], fmt.Sprintf("and %d more", more))
	}
	if len(items) > 0 {
		fmt.Fprintf(w, "  %s: %s\n", label, strings.Join(items, ", "))
	}
}
