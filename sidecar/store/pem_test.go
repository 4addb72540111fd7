package store_test

import (
	"bytes"
	"encoding/pem"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

// TestCheckPEM checks complete and damaged keys in all usual formats, and texts that are not PEM texts.
func TestCheckPEM(t *testing.T) {
	for _, label := range []string{"RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY", "CERTIFICATE", "OPENSSH PRIVATE KEY"} {
		t.Run(label, func(t *testing.T) {
			block := &pem.Block{Type: label, Bytes: bytes.Repeat([]byte("key"), 100)}
			key := string(pem.EncodeToMemory(block))
			trimmed := strings.TrimSuffix(key, "\n")
			noNewline := store.PEMProblem("")
			if label == "OPENSSH PRIVATE KEY" {
				noNewline = store.PEMNoNewline
			}
			for name, c := range map[string]struct {
				text string
				want store.PEMProblem
			}{
				"complete":                  {key, ""},
				"without the last newline":  {trimmed, noNewline},
				"Windows line breaks":       {strings.ReplaceAll(key, "\n", "\r\n"), ""},
				"text before":               {"Bag Attributes\n" + key, ""},
				"two blocks":                {key + key, ""},
				"half":                      {key[:len(key)/2], store.PEMTruncated},
				"half of the first line":    {key[:15], store.PEMTruncated},
				"half of the last line":     {trimmed[:len(trimmed)-6], store.PEMTruncated},
				"half of the second block":  {key + key[:len(key)/2], store.PEMTruncated},
				"one line":                  {strings.ReplaceAll(key, "\n", ""), store.PEMOneLine},
				"one line with white space": {strings.ReplaceAll(key, "\n", " "), store.PEMOneLine},
				"one line with \\n":         {strings.ReplaceAll(key, "\n", `\n`), store.PEMOneLine},
				"two blocks on one line":    {strings.ReplaceAll(key+key, "\n", ""), store.PEMOneLine},
				"JSON":                      {`{"key": "` + strings.ReplaceAll(key, "\n", `\n`) + `"}`, ""},
			} {
				if got := store.CheckPEM([]byte(c.text)); got != c.want {
					t.Errorf("%s: CheckPEM returned %q, want %q", name, got, c.want)
				}
			}
		})
	}
	for _, text := range []string{"", "token", "-----BEGIN", "the text -----BEGIN RSA PRIVATE KEY----- begins a key"} {
		if got := store.CheckPEM([]byte(text)); got != "" {
			t.Errorf("CheckPEM(%q) returned %q", text, got)
		}
	}
}

// TestDirReportsTruncatedPEM checks that Dir.Read reports a truncated key and still uses the value.
func TestDirReportsTruncatedPEM(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	key := "-----BEGIN KEY-----\n" + storetest.Tripwire + "\n-----END KEY-----\n"
	storetest.WriteFile(dir.Path+"/GOOD", key)
	storetest.WriteFile(dir.Path+"/BAD", key[:30])
	storetest.WriteFile(dir.Path+"/tls/key", key[:30])
	r, err := store.Merged{dir}.Read(t.Context(), nil)
	if err != nil || len(r.Set) != 3 || len(r.Unusable) > 0 || len(r.PEMProblems) != 2 || r.PEMProblems[dir.Path+"/BAD"] != store.PEMTruncated || r.PEMProblems[dir.Path+"/tls/key"] != store.PEMTruncated {
		t.Errorf("got %v, error %v", r, err)
	}
}

// TestFoldedPEMIsReported checks that the read of a YAML file and of a command's output reports a PEM text
// whose line breaks YAML has replaced by spaces.
func TestFoldedPEMIsReported(t *testing.T) {
	path := t.TempDir() + "/a.yaml"
	storetest.WriteFile(path, "GOOD: |\n  -----BEGIN KEY-----\n  TRIPWIRE\n  -----END KEY-----\nESCAPED: '-----BEGIN KEY-----\\nTRIPWIRE\\n-----END KEY-----'\n"+
		"BAD: -----BEGIN KEY-----\n  TRIPWIRE\n  -----END KEY-----\ntls:\n  key: \"-----BEGIN KEY-----\n    TRIPWIRE\n    -----END KEY-----\"\n")
	for prefix, source := range map[string]store.Store{
		path: store.File{Path: path, Format: store.YAML}, "exec": store.Exec{Command: "cat " + path, Format: store.YAML, Timeout: time.Minute},
	} {
		r, err := source.Read(t.Context(), &store.Reading{})
		want := map[string]store.PEMProblem{prefix + ": BAD": store.PEMOneLine, prefix + ": tls/key": store.PEMOneLine}
		if err != nil || len(r.Set) != 4 || !maps.Equal(r.PEMProblems, want) {
			t.Errorf("%s: got %v, error %v", prefix, r.PEMProblems, err)
		}
	}
}
