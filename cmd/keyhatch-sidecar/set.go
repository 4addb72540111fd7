package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func setCommand() *cobra.Command {
	var file string
	var allowEmpty bool
	c := &cobra.Command{
		Use:   "set NAME|BUNDLE/FIELD [FIELD=-|FIELD=@FILE...]",
		Short: "Write a secret, a field of a bundle, or a complete bundle into the store",
		Long: `set reads the value from standard input, or from a file. If the input is a terminal, set
asks for the value and hides your input. Type or paste the value, which can have several
lines, and press Ctrl-D. set stores each line break of a typed or pasted value as \n.
Ctrl-C cancels the command, and the store does not change. After Ctrl-Z and fg, set asks
for the value again. If a value contains control characters other than tabs and line
breaks, use a file or a pipe, because pasted text cannot contain these characters. A value
cannot be an argument of the command, because other users can see the arguments of a
process.

From a file or a pipe, set stores exactly the given bytes. The sidecar ignores one newline
(\n or \r\n) at the end of a value that is valid UTF-8 without NUL bytes, but not at the
end of any other value. With --allow-empty, set stores an empty value as a file that
contains only a newline, because the sidecar never uses an empty file.

To write all fields of a bundle in one step, use an argument for each field, so that no
project gets an old and a new field together. For FIELD=-, set reads the value of the
field from standard input. For FIELD=@FILE, set reads the value from FILE. If standard
input is a terminal, set asks for the value of each FIELD=-. If standard input is not a
terminal, only one argument can be FIELD=-.

set prints the size of the new value, and the size of the value that it replaced.

set replaces a secret in one step. set refuses to replace a bundle by a secret, and to
write a complete bundle that lacks a field of the old bundle. The new file has the owner,
the group, the mode, and the ACL of the old file. If set cannot keep the owner, group,
mode, and ACL of the old file, set does not change the store. The file of a new secret has
mode 0600. If root runs set, a new file belongs to the owner of its directory. If the
secret or the bundle is a symbolic link, set replaces the link and does not change the
target of the link.

If the directory of the store does not exist, set creates the directory. The shell does not
expand ~ after dir:, so use $HOME. The sidecar ignores the names .NAME, NAME~, NAME.swp,
#NAME#, 4913, and lost+found, and set refuses these names.

After the change, set checks that the sidecar can push the change. If the sidecar cannot
push the change, for example because the store is too big, set reports the reason, and the
exit code is 1. If another edit of the store is running, set waits for the end of this
edit. set does not connect to the sidecar or to the broker.`,
		Example: `  keyhatch-sidecar set NPM_TOKEN --store dir:$HOME/secrets
  gh auth token | keyhatch-sidecar set GH_TOKEN --store dir:$HOME/secrets
  keyhatch-sidecar set DEPLOY_KEY --file key.pem --store dir:$HOME/secrets
  keyhatch-sidecar set aws/aws_access_key_id --store dir:$HOME/secrets
  keyhatch-sidecar set aws aws_access_key_id=- aws_secret_access_key=- --store dir:$HOME/secrets`,
		Args:        cobra.MinimumNArgs(1),
		Annotations: map[string]string{cli.SecretSource: "set reads the value from standard input"},
	}
	getDir := addDirFlag(c)
	c.Flags().StringVar(&file, "file", "", "read the value from `FILE` instead of standard input")
	c.Flags().BoolVar(&allowEmpty, "allow-empty", false, "allow an empty value")
	c.RunE = func(c *cobra.Command, args []string) error {
		if c.Flags().Changed("file") && file == "" {
			return cli.UsageErrorf("--file needs the path of a file")
		}
		dir, err := getDir()
		if err != nil {
			return err
		}
		values, err := parseSources(args, file)
		if err != nil {
			return err
		}
		// Check the names before the user types a value.
		if err := dir.CheckSet(args[0], fieldNames(values)); err != nil {
			return withFieldHint(withEditHint(err, dir, "set", args[0]), dir, values)
		}
		defer func() {
			for _, v := range values {
				clear(v.content[:cap(v.content)])
			}
		}()
		if err := readValues(c.Context(), values, c.InOrStdin(), allowEmpty); err != nil {
			return err
		}
		created, err := dir.Create()
		if err != nil {
			return err
		}
		if created {
			fmt.Fprintf(c.ErrOrStderr(), "created the store %s\n", cli.Printable(dir.Path))
		}
		links := linkTargets(dir, append(args[:1:1], valueNames(values)...))
		oldSizes := dir.StoredSizes(valueNames(values))
		if err := editStore(c, &dir, func(ctx context.Context) error { return writeValues(ctx, dir, args[0], values) }); err != nil {
			return withEditHint(err, dir, "set", args[0])
		}
		report(c.ErrOrStderr(), dir, values, oldSizes)
		links.warn(c.ErrOrStderr())
		return checkPushable(c, dir, args[0])
	}
	return c
}

// A value is a secret or a field of a bundle that the command set writes.
type value struct {
	name    string // NAME or BUNDLE/FIELD
	field   string // "" unless the command writes a complete bundle
	file    string // "" for standard input
	content []byte
	typed   bool // the content was read from a terminal
}

// parseSources returns the values that the arguments of the command set select. It does not
// read the values yet. An error never quotes the name of the secret or a wrong argument, because the
// user may have typed the value of a secret by mistake.
func parseSources(args []string, file string) ([]value, error) {
	if err := checkSecretName(args[0]); err != nil {
		return nil, err
	}
	if len(args) == 1 {
		return []value{{name: args[0], file: file}}, nil
	}
	if file != "" || strings.Contains(args[0], "/") {
		return nil, cli.UsageErrorf("to write a complete bundle, use BUNDLE with FIELD=- or FIELD=@FILE, and without --file")
	}
	var values []value
	names := map[string]bool{}
	stdinFields := 0
	for _, arg := range args[1:] {
		field, source, ok := strings.Cut(arg, "=")
		path, isFile := strings.CutPrefix(source, "@")
		if source == "-" {
			path = ""
			stdinFields++
		} else if !isFile || path == "" {
			ok = false
		}
		if !ok || !schema.ValidSecretName(field) {
			return nil, cli.UsageErrorf("after the name of a bundle, each argument must be FIELD=- or FIELD=@FILE; a value cannot be an argument, because other users can see the arguments of a process")
		}
		if names[field] {
			return nil, cli.UsageErrorf("the field %s is given twice", field)
		}
		names[field] = true
		values = append(values, value{name: args[0] + "/" + field, field: field, file: path})
	}
	if stdinFields > 1 && !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, cli.UsageErrorf("only one argument can be FIELD=-, because standard input is not a terminal")
	}
	return values, nil
}

func valueNames(values []value) (names []string) {
	for _, v := range values {
		names = append(names, v.name)
	}
	return names
}

// fieldNames returns the names of the fields if values are a complete bundle, and otherwise nil.
func fieldNames(values []value) (names []string) {
	for _, v := range values {
		if v.field != "" {
			names = append(names, v.field)
		}
	}
	return names
}

// readValues reads and checks the content of all values. It reads the files first, so that an
// error in a file is found before the user types a value.
func readValues(ctx context.Context, values []value, stdin io.Reader, allowEmpty bool) error {
	for _, isFile := range []bool{true, false} {
		for i := range values {
			v := &values[i]
			if (v.file != "") != isFile {
				continue
			}
			err := v.read(ctx, stdin)
			if err == nil && strings.Contains(v.name, "/") {
				err = store.CheckField(v.content)
			}
			if err != nil {
				err = fmt.Errorf("cannot read the value of %s: %w", v.name, err)
				if rest, ok := strings.CutPrefix(v.file, "~/"); ok && errors.Is(err, fs.ErrNotExist) {
					err = &cli.Error{Err: err, Hint: `the shell does not expand ~ after = or @: use "$HOME"/` + cli.ShellQuote(rest)}
				}
				return err
			}
			if len(store.TrimNewline(v.content)) == 0 && !allowEmpty {
				return &cli.Error{Err: fmt.Errorf("the value of %s is empty: nothing was changed", v.name), Hint: "to store an empty value, add --allow-empty"}
			}
		}
	}
	return ctx.Err()
}

// read reads the content of a value. Wipe the full capacity of v.content after use.
func (v *value) read(ctx context.Context, stdin io.Reader) (err error) {
	// The buffer never grows, because growing would leave copies of the secret in memory.
	v.content = make([]byte, 0, schema.MaxPush+1)
	input := os.Stdin
	if v.file != "" {
		// Without O_NONBLOCK, Ctrl-C could not end set while it opens a FIFO without a writer.
		if input, err = os.OpenFile(v.file, os.O_RDONLY|syscall.O_NONBLOCK, 0); err != nil {
			return errors.Unwrap(err) // without the path, because the user may have typed the value
		}
		defer input.Close()
		stdin = cli.CancelableReader(ctx, input)
	}
	if v.typed = term.IsTerminal(int(input.Fd())); v.typed {
		v.content, err = cli.ReadHidden(ctx, input, "value of "+v.name, v.content)
	} else {
		v.content, err = cli.ReadAll(stdin, v.content)
	}
	if err == nil && len(v.content) > schema.MaxPush {
		err = fmt.Errorf("the value has more than %d bytes, the maximum size of a push", schema.MaxPush)
	}
	return err
}

// writeValues writes one secret or field, or all fields of the bundle name.
func writeValues(ctx context.Context, dir store.Dir, name string, values []value) error {
	if values[0].field == "" {
		return dir.Set(ctx, name, values[0].content)
	}
	fields := map[string][]byte{}
	for _, v := range values {
		fields[v.field] = v.content
	}
	return dir.SetBundle(ctx, name, fields)
}

// report prints the size of each secret that was written and the size of the value that it replaced.
// It also prints warnings for values that are probably not as the user wants.
func report(w io.Writer, dir store.Dir, values []value, oldSizes map[string]int) {
	if warning, hint := writableWarning(dir); warning != "" {
		fmt.Fprintf(w, "warning: %s\nhint: %s\n", warning, hint)
	}
	for _, v := range values {
		secret := store.TrimNewline(v.content)
		fmt.Fprintf(w, "%s: %s, %s\n", v.name, cli.Plural(len(secret), "byte"), replacedText(oldSizes, v.name))
		reportPEM(w, dir, v)
		if v.typed && hasDoubledLineBreaks(v.content) {
			fmt.Fprintf(w, "warning: each line break of %s is doubled: some terminals paste a Windows line break as two line breaks\n"+
				"hint: if the value should not contain empty lines, save the value in a file, and use --file\n", v.name)
		}
		if bytes.HasPrefix(secret, []byte("\xef\xbb\xbf")) {
			fmt.Fprintf(w, "warning: %s begins with a byte order mark, which is part of the secret\n", v.name)
		}
		if bytes.HasPrefix(secret, []byte("\xff\xfe")) || bytes.HasPrefix(secret, []byte("\xfe\xff")) {
			fmt.Fprintf(w, "warning: %s is probably a text in UTF-16: most programs need UTF-8\n", v.name)
		}
		if bytes.HasSuffix(secret, []byte("\n")) && len(secret) == len(v.content) {
			fmt.Fprintf(w, "warning: the newline at the end of %s is part of the secret, because the value is not valid UTF-8 or contains a NUL byte\n", v.name)
		}
	}
}

// reportPEM prints a warning if the value is a PEM text that a program probably cannot load.
func reportPEM(w io.Writer, dir store.Dir, v value) {
	secret := store.TrimNewline(v.content)
	problem := store.CheckPEM(secret)
	switch problem {
	case "":
		return
	case store.PEMNoNewline:
		missing := `\n`
		if len(secret) == len(v.content) {
			missing = `\n\n` // two newlines, because the sidecar ignores the last newline
		}
		fmt.Fprintf(w, "warning: ssh cannot load the key %s: %s\nhint: to add a newline, run printf '%s' >>%s\n",
			v.name, problem, missing, cli.ShellQuote(filepath.Join(dir.Path, v.name)))
	default:
		fmt.Fprintf(w, "warning: most programs cannot load the PEM text %s: %s\nhint: to write the text from its file, run keyhatch-sidecar set %s --file FILE --store %s\n",
			v.name, problem, v.name, cli.ShellQuote("dir:"+dir.Path))
	}
}

// replacedText describes what the new value of a secret replaced.
func replacedText(oldSizes map[string]int, name string) string {
	switch size, exists := oldSizes[name]; {
	case !exists:
		return "new"
	case size == store.UnknownSize:
		return "replaced the old value"
	default:
		return "replaced " + cli.Plural(size, "byte")
	}
}

// hasDoubledLineBreaks reports whether text contains line breaks and all of them are in pairs.
func hasDoubledLineBreaks(text []byte) (found bool) {
	for i := 0; i < len(text); i++ {
		if text[i] != '\n' {
			continue
		}
		if i++; i == len(text) || text[i] != '\n' {
			return false
		}
		found = true
	}
	return found
}

// withFieldHint adds a command to the hint if the user has given one field of a bundle that also has
// other fields. The command changes this field only, so that the user does not remove the other fields.
func withFieldHint(err error, dir store.Dir, values []value) error {
	failure, _ := errors.AsType[*cli.Error](err)
	conflict, ok := errors.AsType[*store.ConflictError](err)
	if !ok || len(values) != 1 || values[0].field == "" || !strings.Contains(conflict.Remove, "/") {
		return err
	}
	words := []string{"keyhatch-sidecar", "set", values[0].name, "--store", "dir:" + dir.Path}
	if values[0].file != "" {
		words = append(words, "--file", values[0].file)
	}
	failure.Hint = "to change only this field, run " + cli.QuoteWords(words) + "\n" + failure.Hint
	return failure
}
