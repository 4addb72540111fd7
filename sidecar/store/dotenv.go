package store

import (
	"regexp"
	"strings"
	"unicode"

	"github.com/keyhatch/keyhatch/schema"
)

// parseDotenv parses lines of the form NAME=value:
//
//	# comments and empty lines are ignored
//	NAME=unquoted value      # a # after white space begins a comment
//	export NAME='literal'    # a quoted value can contain newlines, but no line NAME=value
//	NAME="the escapes are \n \r \t \" \\ \$ and \`"
//
// parseDotenv does not expand variables. A $ in a value stays a $. lines contains the number of the
// line of each name.
//
// A program that writes base64 can divide a value into several lines. parseDotenv refuses such a value,
// because the first line would be a wrong secret, and the last line, which can end with =, would be the
// name of another secret.
func parseDotenv(text string) (set Set, lines map[schema.SecretName]int, err error) {
	set, lines = Set{}, map[schema.SecretName]int{}
	if line := bareCarriageReturn(text); line > 0 {
		return nil, nil, errorAtLine(line, `a carriage return is not followed by a newline: end each line with a newline, or write \r in double quotes for a carriage return in a value`)
	}
	line := 0
	var wrapped string // the unquoted value of the previous line, or ""
	// Do not concatenate or copy parts of the text. Otherwise the memory could grow with the number of
	// quoted values times the size of the text.
	for pos := 0; pos < len(text); {
		line++
		start := line
		row, _, _ := strings.Cut(text[pos:], "\n")
		end := pos + len(row)
		pos = end + 1
		// Do not remove white space at the end of the line. This white space can be part
		// of a quoted value that continues on the next line.
		row = strings.TrimLeftFunc(row, unicode.IsSpace)
		if onlyPadding.MatchString(row) || isBase64End(wrapped, trimComment(row)) {
			return nil, nil, errorAtLine(start, `this looks like the end of a base64 text that was divided into several lines: write the value in one line, for example with base64 -w 0; write NAME="" for an empty value, and NAME="=" for the value =`)
		}
		wrapped = ""
		if row == "" || row[0] == '#' {
			continue
		}
		if rest, ok := strings.CutPrefix(row, "export "); ok {
			row = strings.TrimLeftFunc(rest, unicode.IsSpace)
		}
		name, spacedValue, ok := strings.Cut(row, "=")
		if !ok {
			return nil, nil, errorAtLine(start, "expected NAME=value")
		}
		name = strings.TrimSpace(name)
		value := strings.TrimLeftFunc(spacedValue, unicode.IsSpace)
		// After this check, the errors still contain no name, because the name can be a part of a value
		// that was divided into several lines.
		if !schema.ValidSecretName(name) {
			return nil, nil, errorAtLine(start, "the name does not match %s", schema.SecretNamePattern)
		}
		if first, exists := lines[schema.SecretName(name)]; exists {
			return nil, nil, errorAtLine(start, "this line has the same name as line %d", first)
		}
		if value != "" && (value[0] == '"' || value[0] == '\'') {
			// A quoted value can continue on the following lines.
			quoted := text[end-len(value)+1:]
			unquoted, consumed, ok := parseQuoted(quoted, value[0])
			if !ok {
				return nil, nil, errorAtLine(start, "the value has no closing quote")
			}
			source := quoted[:consumed-1]
			trailing, _, _ := strings.Cut(quoted[consumed:], "\n")
			if err := dotenvQuoted.check(start, source, trailing); err != nil {
				return nil, nil, err
			}
			line += strings.Count(source, "\n")
			pos = end - len(value) + 1 + consumed + len(trailing) + 1
			value = unquoted
		} else {
			// In a shell, A= B=b sets A to the empty value. But A = B=b is no assignment in a shell.
			isShellEmpty := row[len(name)] == '=' && value != spacedValue && dotenvEntry.MatchString(value)
			value = trimComment(spacedValue)
			if isShellEmpty || anotherName.MatchString(value) {
				return nil, nil, errorAtLine(start, "the value contains another NAME=: write each NAME=value in its own line, or put the value in quotes")
			}
			if strings.HasPrefix(value, "$'") {
				return nil, nil, errorAtLine(start, "the value begins with $', which only a shell understands: put the value in double quotes, where the escapes are \\n \\r \\t \\\" \\\\ \\$ and \\`")
			}
			if strings.HasPrefix(value, "`") {
				return nil, nil, errorAtLine(start, "the value begins with `: put the value in single or double quotes")
			}
			wrapped = value
		}
		if strings.IndexByte(value, 0) >= 0 {
			return nil, nil, errorAtLine(start, "the value contains a NUL byte")
		}
		set[schema.SecretName(name)], lines[schema.SecretName(name)] = Value{Bytes: []byte(value)}, start
	}
	return set, lines, nil
}

// bareCarriageReturn returns the number of the first line in which a \r is not followed by \n, or 0. In
// a file whose lines end with \r, as on an old Mac, the first value would contain all following
// secrets.
func bareCarriageReturn(text string) int {
	for i, row := range strings.SplitAfter(text, "\n") {
		if strings.Contains(strings.TrimSuffix(row, "\r\n"), "\r") {
			return i + 1
		}
	}
	return 0
}

// onlyPadding matches a line whose value consists only of =, as in the last line of a base64 text that
// ends with ==. A comment, or a quote whose opening quote is missing, can follow.
var onlyPadding = regexp.MustCompile(`^[^\s=#]*==+[\\"';,]*\s*($|\s#)`)

// base64Text matches a text that ends with at least 32 characters of base64 or base64url, without
// padding. The usual sizes of the first line of a divided base64 text are 64 and 76. base64Text also
// matches a prefix such as Basic, base64:, {SSHA}, AccountKey=, or the one of a data URI, and a backslash
// that continues a line in a shell.
var base64Text = regexp.MustCompile(`(?:^|[\s:,=}])([A-Za-z0-9+/_-]{32,})\\?$`)

// base64End matches the last line of a divided base64 text that ends with one =.
var base64End = regexp.MustCompile(`^([A-Za-z0-9+/_-]*=)[\\;,]?$`)

// isBase64End reports whether value, from the previous line, and row are probably parts of one base64
// text. row then ends with one =, and the total size is a multiple of 4.
func isBase64End(value, row string) bool {
	last := base64End.FindStringSubmatch(row)
	if last == nil {
		return false
	}
	first := base64Text.FindStringSubmatch(value)
	return first != nil && (len(first[1])+len(last[1]))%4 == 0
}

var dotenvQuoted = quotedForm{
	entry:     "NAME=value",
	isEntry:   isDotenvEntry,
	trailing:  regexp.MustCompile(`^\s*($|\s#)`),
	lineBreak: regexp.MustCompile(`\n`),
}

// The names in these regular expressions are the same as in parseDotenv.
var (
	dotenvEntry      = regexp.MustCompile(`^(export\s+)?[A-Za-z0-9_][A-Za-z0-9_.-]*\s*=(=*|\s*)[^=\s]`)
	emptyDotenvEntry = regexp.MustCompile(`^(export\s+)?[A-Za-z0-9_][A-Za-z0-9_.-]*\s*=$`)
)

// isDotenvEntry returns false for the last line of a base64 text, which can end with = or ==. In a PEM
// text, this line precedes the line -----END. The other lines of a PEM text can have any length, for
// example 70 in a private key of OpenSSH.
func isDotenvEntry(rows []string, i int) bool {
	row := strings.TrimSpace(rows[i])
	isPEMEnd := i+1 < len(rows) && strings.HasPrefix(rows[i+1], "-----END ")
	return dotenvEntry.MatchString(row) ||
		emptyDotenvEntry.MatchString(row) && !isPEMEnd && !isBase64End(strings.TrimSpace(rows[i-1]), row)
}

// anotherName matches an unquoted value that contains another NAME=, as in A=a B=b. A shell would set
// two variables. Without this check, the secret A would contain the secret B.
var anotherName = regexp.MustCompile(`([^\s\v\pZ][\s\v\pZ]+|;[\s\v\pZ]*)(export\s+)?[A-Za-z0-9_][A-Za-z0-9_.-]*=`)

// trimComment removes a comment, and the white space around the rest, from an unquoted value. A # begins a
// comment only after white space, as in a shell. At any other place, a # can be part of a password.
func trimComment(value string) string {
	for i := 1; i < len(value); i++ {
		if value[i] == '#' && (value[i-1] == ' ' || value[i-1] == '\t') {
			return strings.TrimSpace(value[:i])
		}
	}
	return strings.TrimSpace(value)
}

// parseQuoted parses a quoted value. text begins after the opening quote. parseQuoted
// replaces the escapes in the value. It returns the value, and the number of bytes of
// text up to and including the closing quote.
func parseQuoted(text string, quote byte) (unquoted string, consumed int, ok bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == quote:
			return b.String(), i + 1, true
		case c == '\\' && quote == '"' && i+1 < len(text):
			i++
			switch text[i] {
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 't':
				b.WriteByte('\t')
			case '"', '\\', '$', '`':
				b.WriteByte(text[i])
			default: // the two bytes are not an escape, so the backslash is part of the value
				b.WriteByte('\\')
				b.WriteByte(text[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, false
}
