package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
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

// Where root's daemon looks when nobody says otherwise.
const (
	systemConfigFile  = "/etc/keyhatch/keyhatchd.yaml"
	systemProjectsDir = "/etc/keyhatch/projects.d"
)

// settings are the flags that the configuration file can give too, by the same
// names with _ for -.
type settings struct {
	flags *pflag.FlagSet // those below

	runtimeDir    string
	projectsDir   string
	audit         string
	auditRequired bool
	requestRate   float64
	refusalRate   float64
}

func newSettings() *settings {
	f := pflag.NewFlagSet("settings", pflag.ContinueOnError)
	s := &settings{flags: f}
	f.StringVar(&s.runtimeDir, "runtime-dir", "", "directory of the sockets, at most 70 bytes or so")
	f.StringVar(&s.projectsDir, "projects-dir", "", "directory of the declared projects (default for root: "+systemProjectsDir+")")
	f.StringVar(&s.audit, "audit", "", "where audit events go: stdout, journal, or file:PATH, opened anew when rotated (default: journal under systemd, else stdout)")
	f.BoolVar(&s.auditRequired, "audit-required", false, "refuse a project what cannot be recorded within a second")
	f.Float64Var(&s.requestRate, "request-rate", schema.DefaultRequestRate, "requests a second of one project, twice that at once; 0 for no limit")
	f.Float64Var(&s.refusalRate, "refusal-rate", schema.DefaultRefusalRate, "names a second that one project may be refused, three times that at once; 0 for no limit")
	return s
}

// resolve fills in what the command line does not say: from the configuration
// file, and then by default. It returns where each setting came from.
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
		if err == nil {
			err = s.applyFile(text, file, sources)
		} else if optional && errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err != nil {
			return nil, &cli.Error{Err: err, Hint: "keyhatchd --check-config says what is in force"}
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

// validate checks the settings and makes their paths absolute.
func (s *settings) validate() error {
	if s.requestRate < 0 || s.refusalRate < 0 {
		return cli.UsageErrorf("a rate must be 0, for no limit, or more")
	}
	if path, isFile := strings.CutPrefix(s.audit, "file:"); (!isFile || path == "") && s.audit != "stdout" && s.audit != "journal" {
		return cli.UsageErrorf("audit must be stdout, journal or file:PATH")
	}
	if s.runtimeDir == "" {
		return cli.UsageErrorf("neither --runtime-dir nor XDG_RUNTIME_DIR says where the sockets shall be")
	}
	for _, dir := range []*string{&s.runtimeDir, &s.projectsDir} {
		if *dir == "" {
			continue
		}
		absolute, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = absolute
	}
	return nil
}

// applyFile applies the settings of a configuration file that the command line
// does not set. It rejects unknown and duplicate settings, because their author
// expects them to have an effect.
func (s *settings) applyFile(text []byte, file string, sources map[string]string) error {
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(text)).Decode(&doc); errors.Is(err, io.EOF) {
		return nil // comments only
	} else if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s line %d: it must be a mapping of settings", file, root.Line)
	}
	names := []string{}
	s.flags.VisitAll(func(f *pflag.Flag) { names = append(names, strings.ReplaceAll(f.Name, "-", "_")) })
	seen := map[string]bool{}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		switch {
		case !slices.Contains(names, key.Value):
			return fmt.Errorf("%s line %d: there is no setting %q: the settings are %s", file, key.Line, key.Value, strings.Join(names, ", "))
		case seen[key.Value]:
			return fmt.Errorf("%s line %d: %s stands twice", file, key.Line, key.Value)
		case value.Kind != yaml.ScalarNode || value.Tag == "!!null":
			return fmt.Errorf("%s line %d: %s needs one value", file, value.Line, key.Value)
		}
		seen[key.Value] = true
		name := strings.ReplaceAll(key.Value, "_", "-")
		if sources[name] == "flag" {
			continue
		}
		if err := s.flags.Lookup(name).Value.Set(value.Value); err != nil {
			return fmt.Errorf("%s line %d: %s cannot be %q", file, value.Line, key.Value, value.Value)
		}
		sources[name] = file
	}
	return nil
}

// print writes the settings in force as a configuration file, with where each
// came from, and then the declared projects. A file among those that cannot be
// taken is an error.
func (s *settings) print(out io.Writer, sources map[string]string) error {
	s.flags.VisitAll(func(f *pflag.Flag) {
		fmt.Fprintf(out, "%-32s # %s\n", strings.ReplaceAll(f.Name, "-", "_")+": "+f.Value.String(), sources[f.Name])
	})
	if s.projectsDir == "" {
		return nil
	}
	declared, invalid, err := manifest.ReadDeclarations(s.projectsDir)
	if err != nil {
		return err
	}
	for name, d := range declared {
		if _, err := manifest.Parse([]byte(d.Manifest), d.Name); err != nil {
			invalid[name] = err
		}
	}
	names := slices.AppendSeq(slices.Collect(maps.Keys(declared)), maps.Keys(invalid))
	slices.Sort(names)
	var errs []error
	for _, name := range slices.Compact(names) {
		if err := invalid[name]; err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Join(s.projectsDir, name+".yaml"), err))
			continue
		}
		fmt.Fprintf(out, "# declared: %s, in %s\n", name, declared[name].Path)
	}
	return errors.Join(errs...)
}
