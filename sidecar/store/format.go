package store

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// A Format is the format of a file, or of the output of a command.
type Format string

// Dotenv, JSON, and YAML are the supported formats. In JSON and YAML, a secret is a
// string, and a bundle is an object whose values are strings. In YAML, such a value can also
// be a number, a boolean, or a time. The value is then exactly the text in the file. A YAML
// value with the tag !!binary is a binary secret. In every format, a duplicate name is an error.
const (
	Dotenv Format = "dotenv"
	JSON   Format = "json"
	YAML   Format = "yaml"
)

// FormatOf returns the format that matches the name of a file. It returns JSON for .json,
// YAML for .yaml and .yml, and Dotenv for names such as .env, dev.env, and .env.local.
// For all other names, FormatOf returns the empty string.
func FormatOf(name string) Format {
	name = name[strings.LastIndexByte(name, '/')+1:]
	switch {
	case strings.HasSuffix(name, ".json"):
		return JSON
	case strings.HasSuffix(name, ".yaml"), strings.HasSuffix(name, ".yml"):
		return YAML
	case strings.HasSuffix(name, ".env"), strings.HasPrefix(name, ".env"):
		return Dotenv
	}
	return ""
}

// parse parses a text that contains a set of secrets. An error contains the rule that the text
// violates and, if it is known, the line. An error can contain valid names from the text. It
// contains no other part of the text.
//
// A text without content is an error. An empty text usually comes from a file that a program has
// truncated and not yet written. A text that contains only white space usually comes from a program
// that has failed, as in echo "$(program)". To represent an empty set, a text must contain {} in JSON
// and YAML, or a comment in dotenv.
//
// For dotenv, lines contains the number of the line of each name.
func (f Format) parse(text []byte) (set Set, lines map[schema.SecretName]int, err error) {
	// Some editors write a byte order mark, which does not belong to the first name in the file.
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil, errors.New("the input is empty: if the store has no secrets, write {} in JSON or YAML, or a comment in dotenv")
	}
	if !utf8.Valid(text) {
		return nil, nil, errors.New("the text is not valid UTF-8")
	}
	switch f {
	case JSON:
		set, err = parseJSON(text)
		return set, nil, err
	case YAML:
		set, err = parseYAML(text)
		return set, nil, err
	case Dotenv:
		return parseDotenv(string(text))
	}
	return nil, nil, errors.New("unknown format: the formats are dotenv, yaml, and json")
}

func parseJSON(text []byte) (Set, error) {
	secrets, err := wire.ParseSecrets(text)
	if err != nil {
		return nil, err
	}
	set := Set{}
	for name, secret := range secrets {
		if secret.Fields == nil {
			set[name] = Value{Bytes: []byte(secret.Text)}
			continue
		}
		fields := map[schema.SecretName][]byte{}
		for field, text := range secret.Fields {
			fields[field] = []byte(text)
		}
		set[name] = Value{Fields: fields}
	}
	return set, nil
}
