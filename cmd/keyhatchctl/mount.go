package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
)

// devcontainerVariable is the variable that devcontainer up replaces with a dev container ID.
// devcontainer read-configuration does not replace it.
const devcontainerVariable = "${devcontainerId}"

// A mount is a mount of a dev container, without the options that do not change what is mounted.
type mount struct{ kind, source, target string }

// mountOptions contains the options of a mount that parseMount accepts. The value is the name of
// the option without abbreviation. The options that create a volume are missing, because they can
// make a volume from any directory.
var mountOptions = map[string]string{
	"type": "type", "source": "source", "src": "source", "target": "target", "dst": "target", "destination": "target",
	"readonly": "readonly", "ro": "readonly", "consistency": "consistency", "external": "external",
	"bind-propagation": "bind-propagation", "bind-nonrecursive": "bind-nonrecursive", "bind-recursive": "bind-recursive",
	"volume-nocopy": "volume-nocopy", "volume-subpath": "volume-subpath", "tmpfs-size": "tmpfs-size", "tmpfs-mode": "tmpfs-mode",
}

// parseMount parses a mount, which is an object or a string in the format of docker run --mount.
// The result is empty if there is no mount. docker and podman read such a string differently from
// the Dev Container CLI, which converts the string for Compose. Therefore parseMount accepts only
// strings that all of them read in the same way.
func parseMount(raw json.RawMessage) (m mount, err error) {
	var text string
	var object map[string]json.RawMessage
	options := map[string]string{}
	switch {
	case len(raw) == 0 || string(raw) == "null" || string(raw) == `""`:
		return m, nil
	case json.Unmarshal(raw, &object) == nil:
		// As the Dev Container CLI does, compare the keys exactly, and ignore other keys.
		for _, key := range []string{"type", "source", "target"} {
			var value string
			if text, ok := object[key]; ok && json.Unmarshal(text, &value) != nil {
				return m, fmt.Errorf("%s must be a string", key)
			}
			options[key] = value
		}
	case json.Unmarshal(raw, &text) == nil:
		for field := range strings.SplitSeq(text, ",") {
			key, value, _ := strings.Cut(field, "=")
			name, known := mountOptions[key]
			if !known {
				return m, fmt.Errorf("unknown option %q", key)
			}
			if _, repeated := options[name]; repeated {
				return m, fmt.Errorf("the option %s is repeated", name)
			}
			options[name] = value
		}
	default:
		return m, errors.New("a mount must be an object or a string")
	}
	for name, value := range options {
		if strings.ContainsAny(value, `,=:"`) || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsGraphic(r) }) {
			return m, fmt.Errorf("the value of %s must not contain a comma, =, a colon, a quote, or an invisible character", name)
		}
	}
	m = mount{options["type"], options["source"], options["target"]}
	switch m.kind {
	case "", "bind", "volume", "tmpfs":
	default:
		return m, fmt.Errorf("unknown type %q", m.kind)
	}
	if m.kind == "bind" && m.source == "" {
		return m, errors.New("the source is missing") // podman would mount the path target of the host
	}
	if !filepath.IsAbs(m.target) || strings.Contains(m.target, "$") {
		return m, errors.New("the target must be an absolute path without variables")
	}
	m.target = filepath.Clean(m.target)
	return m, nil
}

var volumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// isVolume reports whether the source is not a path: it is absent, or the name of a volume. Such a
// name can contain the variable devcontainerId.
func (m mount) isVolume() bool {
	return m.source == "" || m.kind != "bind" && volumeName.MatchString(strings.ReplaceAll(m.source, devcontainerVariable, "x"))
}
