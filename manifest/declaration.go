package manifest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
	"gopkg.in/yaml.v3"
)

// A Declaration is a project that the broker registers at every start. Its file,
// NAME.yaml in the projects directory, contains the approved manifest. If somebody
// edits the manifest in the project's tree, the edit has no effect at the next start.
type Declaration struct {
	// Name is the name of the file without .yaml.
	Name schema.ProjectName `yaml:"-"`
	// Path is the project's directory, as an absolute, clean path.
	Path string `yaml:"path"`
	// AllowUIDs and DevcontainerIDs have the same meaning as in schema.RegisterRequest. But if
	// AllowUIDs is empty, only root and the broker's own uid can use the project's socket.
	AllowUIDs       []uint32                `yaml:"allow_uids,omitempty,flow"`
	DevcontainerIDs []schema.DevcontainerID `yaml:"devcontainer_ids,omitempty"`
	// Manifest is the text of the approved manifest.
	Manifest string `yaml:"manifest"`
}

// maxDeclaration is the maximum size of a declaration file, in bytes. The manifest in the file
// is indented, so the file can be larger than schema.MaxManifest.
const maxDeclaration = 4 * schema.MaxManifest

// Encode returns the text of the declaration's file. ParseDeclaration returns exactly the same
// manifest from this text, because keyhatchctl compares hashes of manifests to detect edits.
// If no YAML text keeps the manifest unchanged, Encode returns an error.
func (d Declaration) Encode() ([]byte, error) {
	// Prefer a literal block, which is easy to read. If the encoder cannot write the text correctly
	// as a literal block, for example because the text starts with an empty line, use double
	// quotes.
	for _, style := range []yaml.Style{yaml.LiteralStyle, yaml.DoubleQuotedStyle} {
		var node yaml.Node
		if err := node.Encode(d); err != nil {
			return nil, err
		}
		node.Content[len(node.Content)-1].Style = style // the last value is the manifest
		text, err := yaml.Marshal(&node)
		if err != nil {
			return nil, err
		}
		text = append([]byte("# Written by keyhatchctl register --persist. keyhatchd reads it at its start and on SIGHUP.\n"), text...)
		if parsed, err := ParseDeclaration(text, string(d.Name)); err == nil && parsed.Manifest == d.Manifest {
			return text, nil
		}
	}
	return nil, errors.New("cannot store the manifest in a YAML file without changing it: remove unusual characters and line breaks from the manifest")
}

func readDeclaration(path, name string) (Declaration, error) {
	file, err := openDeclaration(path)
	if err != nil {
		return Declaration{}, err
	}
	defer file.Close()
	if err := checkOwnerAndMode(file); err != nil {
		return Declaration{}, err
	}
	text, err := readText(file)
	if err != nil {
		return Declaration{}, err
	}
	return ParseDeclaration(text, name)
}

// ReadDeclarationText returns the text of a declaration's file. Unlike ReadDeclarations, it
// also reads a file that an untrusted user can change. If the file is longer than
// maxDeclaration, ReadDeclarationText returns only the first maxDeclaration+1 bytes.
// ParseDeclaration refuses such a text.
func ReadDeclarationText(path string) ([]byte, error) {
	file, err := openDeclaration(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readText(file)
}

// openDeclaration opens path for reading. It returns an error if path is a link or not a
// regular file. Without O_NONBLOCK, opening a FIFO could block.
func openDeclaration(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func readText(file *os.File) ([]byte, error) {
	return io.ReadAll(io.LimitReader(file, maxDeclaration+1))
}

// checkOwnerAndMode returns an error if a user other than root and the user of this process
// can write to file. The file is a declaration or the directory of the declarations. The check
// is necessary because a declaration grants access to secrets.
func checkOwnerAndMode(file *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("must belong to root or the broker's user, because a declaration grants access to secrets, but belongs to uid %d", st.Uid)
	case st.Mode&0o022 != 0:
		return errors.New("must not be writable by other users, because a declaration grants access to secrets: run chmod go-w")
	}
	return nil
}

// ParseDeclaration parses the text of the file NAME.yaml. The parameter name is NAME.
// ParseDeclaration does not check the manifest in the declaration.
func ParseDeclaration(text []byte, name string) (Declaration, error) {
	d, err := parseDeclaration(text, name)
	if e, ok := errors.AsType[*Error](err); ok {
		e.inDeclaration = true
	}
	return d, err
}

func parseDeclaration(text []byte, name string) (Declaration, error) {
	d := Declaration{Name: schema.ProjectName(name)}
	if !schema.ValidProjectName(name) {
		return d, errorAt(nil, "the file name must be the project's name and .yaml, but the name does not match %s", constant(schema.ProjectNamePattern))
	}
	if len(text) > maxDeclaration {
		return d, errorAt(nil, "the file has more than %d bytes", maxDeclaration)
	}
	root, err := parseDocument(text)
	if err != nil {
		return d, err
	}
	err = readFields(root, "the declaration", map[string]func(*yaml.Node) error{
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
					return errorAt(item, "allow_uids must contain only uids, whole numbers from 0 to 4294967295")
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
		return d, errorAt(root, "path is missing: write path: /path/of/the/project")
	case d.Manifest == "":
		return d, errorAt(root, "manifest is missing: write manifest: | and then the approved text, indented")
	}
	return d, nil
}
