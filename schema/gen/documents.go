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

// Documents returns the text of each published file. The keys of the map are the names of
// the files. The working directory must be the directory of package schema, because
// Documents reads the comments in the source of this package.
func Documents() (map[string][]byte, error) {
	documents := map[string][]byte{}
	for name, document := range map[string]func() (*jsonschema.Schema, error){
		protocolFile: newProtocolDocument,
		manifestFile: newManifestSchema,
	} {
		root, err := document()
		if err != nil {
			return nil, fmt.Errorf("generating %s: %w", name, err)
		}
		root.Version = jsonschema.Version
		root.ID = jsonschema.ID(baseURL + name)
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(root); err != nil {
			return nil, fmt.Errorf("generating %s: %w", name, err)
		}
		documents[name] = b.Bytes()
	}
	return documents, nil
}

// operationRefs contains references to the definitions of the messages of one op.
type operationRefs struct {
	Request  ref  `json:"request"`
	Response ref  `json:"response"`
	Stream   *ref `json:"stream,omitempty"` // refers to the lines that follow the response
}

// newProtocolDocument returns a document with one definition for each message. The root
// of the document accepts any value, because the correct definition depends on the
// socket, the op, and the direction of the message. x-operations refers to the correct
// definition.
func newProtocolDocument() (*jsonschema.Schema, error) {
	r, err := newReflector(true)
	if err != nil {
		return nil, err
	}
	root := &jsonschema.Schema{
		Title: fmt.Sprintf("keyhatch protocol %d", schema.ProtocolVersion),
		Description: "This document defines the requests, responses, and audit events of keyhatch. " +
			"For each op of each socket, x-operations refers to the definitions of the request and of the response. " +
			"If an op sends more lines after the response, stream refers to the definition of these lines. " +
			"Each line after an events request also follows the definition that x-events contains for its field event. " +
			"Any op can return an error response, to whose definition x-error refers. " +
			"A receiver must ignore unknown fields. " +
			"PROTOCOL.md explains how to use the messages.",
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
				event, err := r.addType(root, line)
				if op.Op == schema.OpWatch {
					event, err = r.addDefinition(root, line, "event", schema.WatchEventChanged)
				}
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

// newManifestSchema returns a document whose root describes the manifest. An editor can
// use this document directly.
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
