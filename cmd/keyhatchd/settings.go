package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/pflag"
	"gopkg.in/yaml.v3"
)

// These are the default paths of a daemon that runs as root. Other users have no default for
// them.
const (
	systemConfigFile  = "/etc/keyhatch/keyhatchd.yaml"
	systemProjectsDir = "/etc/keyhatch/projects.d"
)

// settings contains the values of the flags that the configuration file can also set. In the
// file, the name of a setting is the name of its flag, with _ instead of -.
type settings struct {
	flags *pflag.FlagSet // one flag for each field below

	runtimeDir    string
	projectsDir   string
	tokenFile     string
	audit         string
	auditRequired bool
	requestRate   float64
	refusalRate   float64
}

func newSettings() *settings {
	f := pflag.NewFlagSet("settings", pflag.ContinueOnError)
	s := &settings{flags: f}
	f.StringVar(&s.runtimeDir, "runtime-dir", "", "`DIR` for the sockets; its path can have at most about 70 bytes (default for root: /run/keyhatch, for other users: $XDG_RUNTIME_DIR/keyhatch)")
	f.StringVar(&s.projectsDir, "projects-dir", "", "`DIR` of the declared projects (default for root: "+systemProjectsDir+")")
	cli.AddTokenFileFlag(f, &s.tokenFile, "create `FILE` with a new token at each start, and require this token from every client of the admin socket; only root and the user of keyhatchd can read FILE")
	f.StringVar(&s.audit, "audit", "", "`DESTINATION` of audit events: stdout, journal, or file:PATH; if the file is renamed or removed, keyhatchd creates a new file at PATH (default: journal if standard error goes to the systemd journal, otherwise stdout)")
	f.BoolVar(&s.auditRequired, "audit-required", false, "refuse to send secrets if the audit event of the request cannot be written within one second")
	f.Float64Var(&s.requestRate, "request-rate", schema.DefaultRequestRate, "maximum `NUMBER` of requests and new connections per second for each project, with bursts of twice that number; 0 means no limit")
	f.Float64Var(&s.refusalRate, "refusal-rate", schema.DefaultRefusalRate, "maximum `NUMBER` of requested names per second that are denied or not found, for each project, with bursts of three times that number; 0 means no limit")
	return s
}

// resolve reads the configuration file. A setting that is not on the command line gets the value
// in the file, or its default. The returned map contains the source of each setting: "flag",
// "default", or the path of the file. resolve returns an error if it cannot read the file, or if
// a setting is invalid. If the file is the default file and does not exist, resolve ignores it.
func (s *settings) resolve(file string) (sources map[string]string, err error) {
	sources = map[string]string{}
	s.flags.VisitAll(func(f *pflag.Flag) {
		sources[f.Name] = "default"
		if f.Changed {
			sources[f.Name] = "flag"
		}
	})
	root := os.Geteuid() == 0
	optional := file == "" && root
	if optional {
		file = systemConfigFile
	}
	if file != "" {
		text, err := os.ReadFile(file)
		switch {
		case optional && errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("cannot read the settings: %w", err)
		default:
			if err := s.applyFile(text, file, sources); err != nil {
				return nil, &cli.Error{Err: err, Hint: "correct the file, then run keyhatchd --check-config --config " + cli.ShellQuote(file)}
			}
		}
	}
	if s.projectsDir == "" && root && sources["projects-dir"] == "default" {
		s.projectsDir = systemProjectsDir
	}
	if s.audit == "" {
		s.audit = "stdout"
		if underJournal, _ := journal.StderrIsJournalStream(); underJournal {
			s.audit = "journal"
		}
	}
	if s.runtimeDir == "" {
		s.runtimeDir = cli.DefaultRuntimeDir()
	}
	return sources, s.validate()
}

// validate checks the settings and makes the paths absolute.
func (s *settings) validate() error {
	for _, rate := range []float64{s.requestRate, s.refusalRate} {
		if !(rate >= 0) || math.IsInf(rate, 0) { // !(rate >= 0) is also true for NaN
			return cli.UsageErrorf("request-rate and refusal-rate must be finite numbers that are 0 or more")
		}
	}
	if path, isFile := strings.CutPrefix(s.audit, "file:"); (!isFile || path == "") && s.audit != "stdout" && s.audit != "journal" {
		return cli.UsageErrorf("audit must be stdout, journal, or file:PATH")
	}
	if s.runtimeDir == "" {
		return cli.UsageErrorf("cannot choose a runtime directory: set --runtime-dir or XDG_RUNTIME_DIR")
	}
	for _, path := range []*string{&s.runtimeDir, &s.projectsDir, &s.tokenFile} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	return nil
}

// applyFile applies the settings of a configuration file, except for settings that are on the
// command line. An unknown or duplicate setting is an error. If applyFile ignored such a setting,
// the operator would not notice that the setting has no effect.
func (s *settings) applyFile(text []byte, file string, sources map[string]string) error {
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(text)).Decode(&doc); errors.Is(err, io.EOF) {
		return nil // the file is empty or contains only comments
	} else if err != nil {
		return fmt.Errorf("%s: invalid YAML: %s", file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s line %d: the file must contain settings in lines of the form NAME: VALUE", file, root.Line)
	}
	names := []string{}
	s.flags.VisitAll(func(f *pflag.Flag) { names = append(names, strings.ReplaceAll(f.Name, "-", "_")) })
	seen := map[string]bool{}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		switch {
		case !slices.Contains(names, key.Value):
			return fmt.Errorf("%s line %d: unknown setting %q: the settings are %s", file, key.Line, key.Value, strings.Join(names, ", "))
		case seen[key.Value]:
			return fmt.Errorf("%s line %d: duplicate setting %s", file, key.Line, key.Value)
		case value.Kind != yaml.ScalarNode || value.Tag == "!!null":
			return fmt.Errorf("%s line %d: %s needs a single value", file, value.Line, key.Value)
		}
		seen[key.Value] = true
		name := strings.ReplaceAll(key.Value, "_", "-")
		if sources[name] == "flag" {
			continue
		}
		f := s.flags.Lookup(name)
		if err := f.Value.Set(value.Value); err != nil {
			return fmt.Errorf("%s line %d: %s needs %s, not %q", file, value.Line, key.Value, cli.ExpectedValue(f), value.Value)
		}
		sources[name] = file
	}
	return nil
}

// print prints the effective settings in the format of a configuration file, with the source of
// each setting. It then prints the valid declarations of projects. print returns an error if a
// declaration is invalid, or if it cannot read the directory of the declarations.
func (s *settings) print(out io.Writer, sources map[string]string) error {
	s.flags.VisitAll(func(f *pflag.Flag) {
		value := f.Value.String()
		if value == "" && f.Name == cli.TokenFileFlag { // an empty admin_token_file would be an error
			fmt.Fprintf(out, "%-32s # %s\n", "# admin_token_file is not set", sources[f.Name])
			return
		}
		if value == "" {
			value = `""` // without quotes, YAML would read null
		}
		fmt.Fprintf(out, "%-32s # %s\n", strings.ReplaceAll(f.Name, "-", "_")+": "+value, sources[f.Name])
	})
	if s.projectsDir == "" {
		return nil
	}
	declared, invalid, err := manifest.ReadDeclarations(s.projectsDir)
	if err != nil {
		return err
	}
	for name, d := range declared {
		if _, err := manifest.Parse([]byte(d.Manifest)); err != nil {
			invalid[name] = err
		}
	}
	names := slices.AppendSeq(slices.Collect(maps.Keys(declared)), maps.Keys(invalid))
	slices.Sort(names)
	var errs []error
	for _, name := range slices.Compact(names) {
		if err := invalid[name]; err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", cli.Printable(filepath.Join(s.projectsDir, name+".yaml")), err))
			continue
		}
		fmt.Fprintf(out, "# declared: %s, in %s\n", name, cli.PrintableWord(declared[name].Path))
	}
	return errors.Join(errs...)
}
