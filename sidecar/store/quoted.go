package store

import "regexp"

// A quotedForm contains the rules that find a quoted value whose closing quote is probably missing. The
// value then ends at the opening quote of a later value, and contains other secrets.
type quotedForm struct {
	entry string // the form of an entry, for errors
	// isEntry reports whether the line with the index i looks like an entry.
	isEntry func(rows []string, i int) bool
	// trailing matches what can follow a closing quote in its line. A # directly after a quote begins
	// no comment. This quote is probably the opening quote of a value that begins with #.
	trailing  *regexp.Regexp
	lineBreak *regexp.Regexp
}

// check returns an error if the closing quote of a value is probably missing. source is the text between
// the quotes, which begins in the line with the given number. trailing is the rest of the line after the
// closing quote. The error contains no name, because the name can be a part of another value.
func (f quotedForm) check(line int, source, trailing string) error {
	if !f.trailing.MatchString(trailing) {
		return errorAtLine(line, "unexpected text after the closing quote")
	}
	rows := f.lineBreak.Split(source, -1)
	for i := 1; i < len(rows); i++ {
		if f.isEntry(rows, i) {
			return errorAtLine(line, `the quoted value contains line %d, which looks like another %s: close the quote, or write the value in one line, in double quotes and with \n for each newline`, line+i, f.entry)
		}
	}
	return nil
}
