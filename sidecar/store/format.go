package store

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// A Format is how a file, or a command's output, holds a set of secrets.
type Format string

// The formats. In JSON and YAML a secret is a string, or for a bundle an object
// of strings; in YAML a number or a boolean is the text as it is written. In
// all of them a name may stand only once.
const (
	Dotenv Format = "dotenv"
	JSON   Format = "json"
	YAML   Format = "yaml"
)

// FormatOf tells a file's format by its name: .json, .yaml or .yml, and dotenv
// for .env, .env.local and the like. It is empty for any other.
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

// parse reads a set. Errors say the line and the rule, and hold nothing of the
// text but names that are valid. A text without a single byte is an error: it is
// a file that is about to be written far more often than an empty set, which a
// comment or {} says.
func (f Format) parse(text []byte) (Set, error) {
	if len(text) == 0 {
		return nil, errors.New("it is empty: for no secrets write {}, or in dotenv a comment")
	}
	if !utf8.Valid(text) {
		return nil, errors.New("it is not UTF-8")
	}
	switch f {
	case JSON:
		return parseJSON(text)
	case YAML:
		return parseYAML(text)
	case Dotenv:
		return parseDotenv(string(text))
	}
	return nil, errors.New("its format is not known: say --format dotenv, yaml or json")
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
