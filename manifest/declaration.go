package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
	"gopkg.in/yaml.v3"
)

// A Declaration is a project that an operator wants served at every start. Its
// file, NAME.yaml in the projects directory, holds the approved manifest itself,
// so that an edit in the project's tree grants nothing at the next boot.
type Declaration struct {
	// Name is the file's, without .yaml, and the base name of Path.
	Name schema.ProjectName `yaml:"-"`
	// Path is the project's directory, absolute and clean.
	Path string `yaml:"path"`
	// AllowUIDs and DevcontainerIDs are those of a schema.RegisterRequest.
	AllowUIDs       []uint32                `yaml:"allow_uids,omitempty,flow"`
	DevcontainerIDs []schema.DevcontainerID `yaml:"devcontainer_ids,omitempty"`
	// Manifest is the approved text.
	Manifest string `yaml:"manifest"`
}

// maxDeclaration bounds a file: a manifest that is indented, and room for the
// rest.
const maxDeclaration = 4 * schema.MaxManifest

// Encode returns the text of the declaration's file. The manifest in it reads
// back byte by byte, for its hash is what a drift is told by.
func (d Declaration) Encode() ([]byte, error) {
	// As a block where that can hold it, for people; the encoder gets some blocks
	// wrong, one that begins with an empty line for one.
	for _, style := range []yaml.Style{yaml.LiteralStyle, yaml.DoubleQuotedStyle} {
		var node yaml.Node
		if err := node.Encode(d); err != nil {
			return nil, err
		}
		node.Content[len(node.Content)-1].Style = style // the manifest's
		text, err := yaml.Marshal(&node)
		if err != nil {
			return nil, err
		}
		text = append([]byte("# Written by keyhatchctl register --persist. keyhatchd reads it at its start and on SIGHUP.\n"), text...)
		if parsed, err := ParseDeclaration(text, string(d.Name)); err == nil && parsed.Manifest == d.Manifest {
			return text, nil
		}
	}
	return nil, errors.New("the manifest's text cannot be kept in a file of YAML as it is: write it in plain YAML")
}

// ReadDeclarations reads all NAME.yaml in dir. Both maps are by NAME: what was
// read, and what is wrong with the other files. A directory that does not exist
// declares nothing; one that cannot be trusted or read is an error.
func ReadDeclarations(dir string) (declared map[string]Declaration, invalid map[string]error, err error) {
	declared, invalid = map[string]Declaration{}, map[string]error{}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return declared, invalid, nil
	}
	if err != nil {
		return nil, nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	if err := checkTrusted(d); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", dir, err)
	}
	for _, entry := range entries {
		name, isYAML := strings.CutSuffix(entry.Name(), ".yaml")
		if !isYAML || strings.HasPrefix(name, ".") {
			continue
		}
		declaration, err := readDeclaration(filepath.Join(dir, entry.Name()), name)
		if err != nil {
			invalid[name] = err
			continue
		}
		declared[name] = declaration
	}
	return declared, invalid, nil
}

func readDeclaration(path, name string) (Declaration, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return Declaration{}, err
	}
	defer file.Close()
	if err := checkTrusted(file); err != nil {
		return Declaration{}, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxDeclaration+1))
	if err != nil {
		return Declaration{}, err
	}
	return ParseDeclaration(text, name)
}

// checkTrusted refuses a file that a user other than root and the broker's user
// could have written, because the file grants access to secrets.
func checkTrusted(file *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG && st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return errors.New("it is no regular file")
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to uid %d: it must be root's or the broker's, because it says what may be fetched", st.Uid)
	case st.Mode&0o022 != 0:
		return errors.New("others can write it: chmod go-w, because it says what may be fetched")
	}
	return nil
}

// ParseDeclaration reads the text of NAME.yaml. The manifest in it is not
// parsed.
func ParseDeclaration(text []byte, name string) (Declaration, error) {
	d, err := parseDeclaration(text, name)
	if e, ok := errors.AsType[*Error](err); ok && e.Line > 0 {
		// The lines are not the manifest's.
		return d, fmt.Errorf("line %d: %s", e.Line, e.Rule)
	} else if ok {
		return d, errors.New(e.Rule)
	}
	return d, err
}

func parseDeclaration(text []byte, name string) (Declaration, error) {
	d := Declaration{Name: schema.ProjectName(name)}
	if !schema.ValidProjectName(name) {
		return d, errorAt(nil, "the file's name is the project's, and does not match %s", schema.ProjectNamePattern)
	}
	if len(text) > maxDeclaration {
		return d, errorAt(nil, "it has over %d bytes", maxDeclaration)
	}
	root, err := parseDocument(text)
	if err != nil {
		return d, err
	}
	err = readFields(root, "a declaration", map[string]func(*yaml.Node) error{
		"path": func(n *yaml.Node) (err error) {
			d.Path, err = readString(n, "path")
			return err
		},
		"manifest": func(n *yaml.Node) (err error) {
			d.Manifest, err = readString(n, "manifest")
			return err
		},
		"allow_uids": func(n *yaml.Node) error {
			return readList(n, "allow_uids", func(item *yaml.Node) error {
				uid, err := strconv.ParseUint(item.Value, 10, 32)
				if err != nil || item.Tag != "!!int" {
					return errorAt(item, "allow_uids holds something that is no uid")
				}
				d.AllowUIDs = append(d.AllowUIDs, uint32(uid))
				return nil
			})
		},
		"devcontainer_ids": func(n *yaml.Node) error {
			return readList(n, "devcontainer_ids", func(item *yaml.Node) error {
				d.DevcontainerIDs = append(d.DevcontainerIDs, schema.DevcontainerID(item.Value))
				return nil
			})
		},
	})
	switch {
	case err != nil:
		return d, err
	case d.Path == "":
		return d, errorAt(root, "path is missing: write path: and the project's directory")
	case d.Manifest == "":
		return d, errorAt(root, "manifest is missing: write manifest: | and the approved text, indented")
	}
	return d, nil
}
