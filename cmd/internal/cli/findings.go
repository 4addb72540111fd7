package cli

import (
	"fmt"
	"io"
	"strings"
)

// A Finding is the result of one check of a doctor command.
type Finding struct {
	Check   string `json:"check"`
	Problem string `json:"problem,omitzero"` // "" if the check found no problem
	Detail  string `json:"detail"`
	// Each line of Fix is one way to solve the problem, or one step of a solution. A line is a
	// command, or a text. If a text contains a command, the command is usually at the end, after
	// a colon. Fix is "" if there is no problem, or if no fix is known.
	Fix string `json:"fix,omitzero"`
}

// Print prints the finding as text. If the check found a problem, the text begins with label, and
// the lines of the fix follow. Otherwise, the text begins with ok.
func (f Finding) Print(w io.Writer, label string) {
	if f.Problem == "" {
		fmt.Fprintf(w, "ok   %s: %s\n", f.Check, f.Detail)
		return
	}
	fmt.Fprintf(w, "%-4s %s: %s: %s\n", label, f.Check, f.Problem, strings.ReplaceAll(f.Detail, "\n", "\n       "))
	for line := range strings.Lines(f.Fix) {
		fmt.Fprintf(w, "     fix: %s\n", strings.TrimSuffix(line, "\n"))
	}
}

// PrintFindings prints the findings as text or as JSON. It returns an error if a check found a
// problem, or if it cannot print JSON.
func PrintFindings(w io.Writer, findings []Finding, asJSON bool) error {
	problems := 0
	for _, f := range findings {
		if f.Problem != "" {
			problems++
		}
	}
	if asJSON {
		if err := PrintJSON(w, struct {
			OK       bool      `json:"ok"`
			Findings []Finding `json:"findings"`
		}{problems == 0, findings}); err != nil {
			return err
		}
	} else {
		for _, f := range findings {
			f.Print(w, "BAD")
		}
	}
	if problems > 0 {
		return fmt.Errorf("%d of %d checks found a problem", problems, len(findings))
	}
	return nil
}
