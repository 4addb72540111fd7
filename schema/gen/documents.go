package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/invopop/jsonschema"
	"github.com/keyhatch/keyhatch/schema"
)

const (
	protocolFile = "keyhatch.v2.json"
	manifestFile = "manifest.v1.json"
	baseURL      = "https://github.com/keyhatch/keyhatch/schema/"
)

// Documents returns the published files: the text of each file, by its name. The
// working directory must be the directory of package schema, because the
// descriptions are read from the comments in its source.
func Documents() (map[string][]byte, error) {
	documents := map[string][]byte{}
	for name, document := range map[string]func() (*jsonschema.Schema, error){
		protocolFile: newProtocolDocument,
		manifestFile: newManifestSchema,
	} {
		root, err := document()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		root.Version = jsonschema.Version
		root.ID = jsonschema.ID(baseURL + name)
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(root); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		documents[name] = b.Bytes()
	}
	return documents, nil
}

// operationRefs contains references to the definitions of an operation's messages.
type operationRefs struct {
	Request  ref  `json:"request"`
	Response ref  `json:"response"`
	Stream   *ref `json:"stream,omitempty"` // the lines after the response
}

// newProtocolDocument returns a document with one definition for each message. Its
// root accepts any value, because the definition for a line depends on the socket,
// the op, and the direction. x-operations contains these definitions.
func newProtocolDocument() (*jsonschema.Schema, error) {
	r, err := newReflector(true)
	if err != nil {
		return nil, err
	}
	root := &jsonschema.Schema{
		Title: fmt.Sprintf("keyhatch protocol %d", schema.ProtocolVersion),
		Description: "Requests, responses, and audit events of keyhatch. For each op of each socket, x-operations refers to " +
			"the definitions of the request and of the response. If more lines follow the response, stream refers to their " +
			"definition. Any op can return x-error instead. Receivers must ignore unknown fields. PROTOCOL.md explains how to " +
			"use the messages.",
		Definitions: jsonschema.Definitions{},
	}
	operations := map[string]map[schema.Op]operationRefs{}
	for socket, ops := range map[string][]schema.Operation{
		"admin": schema.AdminOperations, "project": schema.ProjectOperations,
	} {
		operations[socket] = map[schema.Op]operationRefs{}
		for _, op := range ops {
			request, err := r.addDefinition(root, op.Request, "op", op.Op)
			if err != nil {
				return nil, err
			}
			response, err := r.addDefinition(root, op.Response, "ok", true)
			if err != nil {
				return nil, err
			}
			var stream *ref
			if line := schema.StreamEvents[op.Op]; line != nil {
				event, err := r.addDefinition(root, line, "event", schema.WatchEventChanged)
				if err != nil {
					return nil, err
				}
				stream = &event
			}
			operations[socket][op.Op] = operationRefs{request, response, stream}
		}
	}
	failure, err := r.addDefinition(root, schema.ErrorResponse{}, "ok", false)
	if err != nil {
		return nil, err
	}
	events := map[schema.EventName]ref{}
	for _, event := range schema.AuditEvents {
		if events[event.Name], err = r.addDefinition(root, event.Event, "event", event.Name); err != nil {
			return nil, err
		}
	}
	root.Extras = map[string]any{
		"x-operations": operations, "x-error": failure, "x-events": events, "x-limits": publishedLimits,
	}
	return root, completeDocument(root, protocolRules)
}

// newManifestSchema returns a document whose root is the manifest, so that an
// editor can use it directly.
func newManifestSchema() (*jsonschema.Schema, error) {
	r, err := newReflector(false)
	if err != nil {
		return nil, err
	}
	root := &jsonschema.Schema{Definitions: jsonschema.Definitions{}}
	if _, err := r.addDefinition(root, schema.Manifest{}, "schema_version", schema.ManifestVersion); err != nil {
		return nil, err
	}
	if err := completeDocument(root, manifestRules); err != nil {
		return nil, err
	}
	manifest := root.Definitions["Manifest"]
	delete(root.Definitions, "Manifest")
	manifest.Definitions = root.Definitions
	manifest.Title = fmt.Sprintf("keyhatch manifest, schema_version %d", schema.ManifestVersion)
	return manifest, nil
}
