package store

import (
	"regexp"
	"strings"
)

// A quotedForm contains the rules that find a quoted value whose closing quote is probably missing. The
// value then ends at the opening quote of a later value, and contains other secrets.
type quotedForm struct {
	entry string // the form of an entry, for errors
	// isEntry reports whether a line looks like an entry. previous is the line before.
	isEntry func(previous, row string) bool
	// trailing matches what can follow a closing quote in its line. A # directly after a quote begins
	// no comment. This quote is probably the opening quote of a value that begins with #.
	trailing  *regexp.Regexp
	lineBreak *regexp.Regexp
}

var dotenvQuoted = quotedForm{
	entry:     "NAME=value",
	isEntry:   isDotenvEntry,
	trailing:  regexp.MustCompile(`^\s*($|\s#)`),
	lineBreak: regexp.MustCompile(`\n`),
}

var yamlQuoted = quotedForm{
	entry:     "NAME: value",
	isEntry:   func(_, row string) bool { return yamlEntry.MatchString(row) },
	trailing:  regexp.MustCompile(`^($|[^#])`), // the YAML parser refuses most other texts
	lineBreak: regexp.MustCompile("\r\n|[\r\n\u0085\u2028\u2029]"),
}

// The names in these regular expressions are the same as in schema.SecretNamePattern.
var (
	dotenvEntry      = regexp.MustCompile(`^\s*(export\s+)?[A-Za-z0-9_][A-Za-z0-9_.-]*\s*=\s*[^=\s]`)
	emptyDotenvEntry = regexp.MustCompile(`^\s*(export\s+)?[A-Za-z0-9_][A-Za-z0-9_.-]*\s*=\s*$`)
	yamlEntry        = regexp.MustCompile(`^[\s{,?-]*([A-Za-z0-9_][A-Za-z0-9_.-]*\s*:(\s|$)|["'][A-Za-z0-9_][A-Za-z0-9_.-]*["']\s*:)`)
)

// isDotenvEntry returns false for the last line of a base64 text, which can end with = or ==.
func isDotenvEntry(previous, row string) bool {
	return dotenvEntry.MatchString(row) ||
		emptyDotenvEntry.MatchString(row) && !strings.HasPrefix(previous, "-----BEGIN ") && !isBase64End(previous, strings.TrimSpace(row))
}

// check returns an error if the closing quote of a value is probably missing. source is the text between
// the quotes, which begins in the line with the given number. trailing is the rest of the line after the
// closing quote. The error contains no name, because the name can be a part of another value.
func (f quotedForm) check(line int, source, trailing string) error {
	if !f.trailing.MatchString(trailing) {
		return errorAtLine(line, "unexpected text after the closing quote")
	}
	rows := f.lineBreak.Split(source, -1)
	for i, row := range rows[1:] {
		if f.isEntry(rows[i], row) {
			return errorAtLine(line, `the quoted value contains line %d, which looks like another %s: close the quote, or write the value in one line, in double quotes and with \n for each newline`, line+1+i, f.entry)
		}
	}
	return nil
}
