package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A mount is an entry of mounts in devcontainer.json. It contains the options of docker run
// --mount, in their order.
type mount []mountOption

// A mountOption is one option of a mount. The key is in lower case, because docker ignores the
// case of the key.
type mountOption struct{ key, value string }

// parseMount parses a mount, which is an object or a string in the format of docker run --mount.
// The result is empty if there is no mount. parseMount reads an object as the Dev Container CLI
// does, which compares the keys exactly, and joins the values with commas.
func parseMount(raw json.RawMessage) (mount, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) == nil {
		var m mount
		for _, key := range []string{"type", "source", "target"} {
			var value string
			if text, ok := object[key]; ok && json.Unmarshal(text, &value) != nil {
				return nil, fmt.Errorf("%s must be a string", key)
			}
			if strings.ContainsAny(value, ",\"\r\n") {
				return nil, fmt.Errorf("%s must not contain a comma, a quote, or a line break", key)
			}
			if value != "" {
				m = append(m, mountOption{key, value})
			}
		}
		return m, m.checkType()
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return nil, errors.New("a mount must be an object or a string")
	}
	if text == "" {
		return nil, nil
	}
	if strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("a mount must not contain a line break")
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read() // as docker does
	if err != nil {
		return nil, err
	}
	// For Docker Compose, the Dev Container CLI splits the text at each comma, even between
	// quotes. Check these parts, too.
	if parts := strings.Split(text, ","); strings.Contains(text, `"`) {
		fields = append(fields, parts...)
	}
	var m mount
	for _, field := range fields {
		key, value, _ := strings.Cut(strings.Trim(field, `" `), "=")
		m = append(m, mountOption{strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)})
	}
	return m, m.checkType()
}

// checkType returns an error for the type glob of podman. The source of such a mount is a
// pattern, which mountCheck cannot compare with paths.
func (m mount) checkType() error {
	if slices.Contains(m, mountOption{"type", "glob"}) {
		return errors.New("the type must not be glob")
	}
	return nil
}

func isTarget(key string) bool { return key == "target" || key == "dst" || key == "destination" }

// target returns the path at which the mount is mounted, or "" if there is no such path.
func (m mount) target() string {
	for _, option := range m {
		if isTarget(option.key) {
			return filepath.Clean(option.value)
		}
	}
	return ""
}

// sources returns the absolute paths on the host that the mount could use. An option of a volume
// can contain several paths.
func (m mount) sources(folder string) (sources []string) {
	workingDir, _ := os.Getwd()
	for _, option := range m {
		switch {
		case isTarget(option.key) || option.key == "type":
		case option.key == "volume-opt":
			name, value, _ := strings.Cut(option.value, "=")
			values := []string{value}
			if name != "device" {
				values = strings.FieldsFunc(option.value, func(r rune) bool { return strings.ContainsRune("=:,", r) })
			}
			for _, value := range values {
				if value != "" { // a relative path begins at the daemon's directory, usually /
					sources = append(sources, filepath.Join("/", value))
				}
			}
		case filepath.IsAbs(option.value):
			sources = append(sources, filepath.Clean(option.value))
		case strings.HasPrefix(option.value, "."), strings.Contains(option.value, "/"):
			sources = append(sources, filepath.Join(folder, option.value), filepath.Join(workingDir, option.value))
		}
	}
	return sources
}

// isPlain reports whether each option of the mount is known and occurs once.
func (m mount) isPlain() bool {
	found := map[string]bool{}
	for _, option := range m {
		key := option.key
		switch key {
		case "src":
			key = "source"
		case "dst", "destination":
			key = "target"
		case "ro":
			key = "readonly"
		case "type", "source", "target", "readonly", "consistency", "bind-propagation":
		default:
			return false
		}
		if found[key] {
			return false
		}
		found[key] = true
	}
	return true
}
