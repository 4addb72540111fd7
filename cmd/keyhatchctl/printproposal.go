package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
)

// print shows everything that an approval would change.
func (p proposal) print(out io.Writer) {
	w := &strings.Builder{}
	fmt.Fprintf(w, "project %s in %s\n", p.request.Name, cli.PrintableWord(p.request.ProjectPath))
	fmt.Fprintf(w, "manifest %s", p.file.Path)
	if p.file.Ignored != "" {
		fmt.Fprintf(w, "; %s also exists, and is ignored", p.file.Ignored)
	}
	fmt.Fprintln(w)
	if p.registered != nil && p.registered.Unserved {
		state := "registered"
		if p.registered.Declared {
			state = "declared"
		}
		fmt.Fprintf(w, "the project is %s, but the broker does not serve it\n", state)
	}
	if p.registered == nil || p.registered.Unserved {
		fmt.Fprintf(w, "allowed uids %s\n", formatUIDs(p.request.AllowUIDs))
		for _, folder := range p.folders {
			fmt.Fprintf(w, "dev containers in %s\n", cli.PrintableWord(folder.path))
		}
	}
	for _, folder := range p.folders {
		if folder.ignoredConfigs > 0 {
			fmt.Fprintf(w, "keyhatchctl ignores %s in %s, because a folder can have at most %d\n", cli.Plural(folder.ignoredConfigs, "devcontainer.json file"), cli.PrintableWord(folder.path), maxFolderIDs)
		}
	}
	if len(p.changes) == 0 && p.registered != nil {
		fmt.Fprintln(w, "the effects do not change")
	}
	for _, c := range p.changes {
		indent := func(text string) string { return strings.ReplaceAll(text, "\n", "\n      ") }
		switch {
		case c.Old == "":
			fmt.Fprintf(w, "+ %s: %s\n", c.Subject, indent(c.New))
		case c.New == "":
			fmt.Fprintf(w, "- %s: %s\n", c.Subject, indent(c.Old))
		default:
			fmt.Fprintf(w, "~ %s\n    old: %s\n    new: %s\n", c.Subject, indent(c.Old), indent(c.New))
		}
	}
	dangers := p.dangerLines() + strings.Join(p.devcontainerDangers, "")
	if screenLines(w.String())+screenLines(dangers) > maxLinesWithoutSummary {
		p.printSummary(w)
	}
	io.WriteString(out, w.String()+dangers)
}

// maxSummaryItems is the maximum number of names in each list of a summary, and maxSummaryLength
// is the maximum length of the names in a list, in bytes. If a list is longer, printSummary omits
// the other names and prints a warning.
const (
	maxSummaryItems  = 20
	maxSummaryLength = 400
)

// If a proposal contains more than maxDangersWithoutCount dangerous changes, dangerLines also
// prints their number.
const maxDangersWithoutCount = 10

// maxLinesWithoutSummary is the maximum number of lines of a proposal that is printed
// without a summary. Such a proposal fits on one screen.
const maxLinesWithoutSummary = 15

// screenLines returns how many lines a text needs on a terminal with 80 columns.
func screenLines(text string) (lines int) {
	for line := range strings.Lines(text) {
		lines += 1 + len(line)/80
	}
	return lines
}

// printSummary prints the changes of a proposal again, in a few lines. A terminal shows only the
// last lines of a proposal, and a manifest can contain templates with thousands of lines. The
// summary names each change, or warns that it omits some names. So a long list of harmless
// changes cannot hide a dangerous change.
func (p proposal) printSummary(w io.Writer) {
	var added, changed, removed, addedSecrets, changedSecrets, removedSecrets, changedFiles, others []string
	for _, c := range p.changes {
		all, secrets := &changed, &changedSecrets
		switch {
		case c.Old == "":
			all, secrets = &added, &addedSecrets
		case c.New == "":
			all, secrets = &removed, &removedSecrets
		}
		*all = append(*all, c.Subject)
		isNewLogin := strings.Contains(c.Subject, " login ") && c.New != "" // listed under "new or changed logins"
		if secret, isSecret := strings.CutPrefix(c.Subject, "secret "); isSecret {
			*secrets = append(*secrets, secret)
			if file := movedFile(c); file != "" {
				changedFiles = append(changedFiles, secret+" at "+file)
			}
		} else if !isNewLogin {
			others = append(others, c.Subject)
		}
	}
	fmt.Fprintf(w, "summary of project %s in %s:\n", p.request.Name, cli.PrintableWord(p.request.ProjectPath))
	fmt.Fprintf(w, "  %s: %d added, %d changed, %d removed\n", cli.Plural(len(p.changes), "change"), len(added), len(changed), len(removed))
	omitted := 0
	for _, list := range []struct {
		label string
		items []string
	}{
		{"added secrets", addedSecrets},
		{"changed secrets", changedSecrets},
		{"removed secrets", removedSecrets},
		{"changed files", changedFiles},
		{"new hosts in files", p.fileHosts},
		{"new or changed logins", p.logins},
		{"other changes", others},
		{"allowed uids", uidTexts(p.request.AllowUIDs)},
	} {
		omitted += printList(w, list.label, list.items)
	}
	if omitted > 0 {
		fmt.Fprintf(w, "! this summary is dangerous: it omits %s: read the whole list of changes\n", cli.Plural(omitted, "name"))
	}
}

// movedFile returns the new path and mode of a secret's file if a change replaces the old path,
// the old mode, or the old variable of the secret. Otherwise, movedFile returns "".
func movedFile(c manifest.Change) string {
	// The text of a file is "file PATH, mode MODE, with ...". PATH contains no space.
	before, _, _ := strings.Cut(c.Old, ", with ")
	after, _, _ := strings.Cut(c.New, ", with ")
	file, isFile := strings.CutPrefix(after, "file ")
	if !isFile || c.Old == "" || before == after {
		return ""
	}
	return strings.Replace(file, ", mode ", " with mode ", 1)
}

// dangerLines returns one line for each dangerous change, which print prints at the end of a
// proposal. dangerLines omits no change, because untrusted code chooses the order of the changes,
// and could choose which change is omitted. A terminal may not show the first of many lines. So
// if there are more than maxDangersWithoutCount dangerous changes, the last line contains their
// number.
func (p proposal) dangerLines() string {
	var b strings.Builder
	count := 0
	for _, c := range p.changes {
		if c.Danger != "" {
			count++
			fmt.Fprintf(&b, "! %s: dangerous: %s\n", c.Subject, c.Danger)
		}
	}
	if count > maxDangersWithoutCount {
		fmt.Fprintf(&b, "! %d dangerous changes\n", count)
	}
	return b.String()
}

// printList prints the first items of a list in one line, and returns the number of omitted
// items. For an empty list, printList prints nothing.
func printList(w io.Writer, label string, items []string) (omitted int) {
	length, shown := 0, 0
	for shown < min(len(items), maxSummaryItems) && length+len(items[shown]) <= maxSummaryLength {
		length += len(items[shown])
		shown++
	}
	omitted = len(items) - shown
	if omitted > 0 {
		items = append(items[:shown:shown], fmt.Sprintf("and %d more", omitted))
	}
	if len(items) > 0 {
		fmt.Fprintf(w, "  %s: %s\n", label, strings.Join(items, ", "))
	}
	return omitted
}
