package cli

import (
	"errors"

	"github.com/spf13/pflag"
)

// TokenFileFlag is the name of the flag for the file with the admin token.
const TokenFileFlag = "admin-token-file"

// AddTokenFileFlag adds the flag for the file with the admin token. The flag refuses an empty value.
// Otherwise, keyhatchd with an unset variable in --admin-token-file "$FILE" would start without a
// token.
func AddTokenFileFlag(flags *pflag.FlagSet, file *string, usage string) {
	flags.Var((*filePath)(file), TokenFileFlag, usage)
}

// A filePath is the value of a flag that takes a path. Set refuses an empty path.
type filePath string

func (p *filePath) Set(value string) error {
	if value == "" {
		return errors.New("the path is empty")
	}
	*p = filePath(value)
	return nil
}

func (p *filePath) String() string { return string(*p) }

func (p *filePath) Type() string { return "path" }
