package store

import (
	"bytes"
	"slices"
)

// A PEMProblem is a reason why programs probably cannot use a PEM text.
type PEMProblem string

// The problems of a PEM text.
const (
	PEMTruncated PEMProblem = "the line -----END is missing, so the text is probably not complete"
	PEMOneLine   PEMProblem = "the line breaks are missing"
	// PEMNoNewline is only a problem for private keys in the format of OpenSSH, which ssh loads.
	PEMNoNewline PEMProblem = "the key does not end with a newline (the sidecar ignores one newline at the end of a file)"
)

// CheckPEM returns the most important problem of a secret that is a PEM text. If the secret is not a PEM
// text, or if it has no problem, CheckPEM returns "".
func CheckPEM(secret []byte) PEMProblem {
	const begin, end, dashes = "-----BEGIN ", "-----END ", "-----"
	if !bytes.HasPrefix(bytes.TrimSpace(secret), []byte(begin)) && !bytes.Contains(secret, []byte("\n"+begin)) {
		return ""
	}
	// A file can contain several blocks. If the file is truncated, its last block is not complete.
	block := secret[bytes.LastIndex(secret, []byte(begin))+len(begin):]
	label, content, hasLabel := bytes.Cut(block, []byte(dashes))
	body, _, hasEnd := bytes.Cut(content, slices.Concat([]byte(end), label, []byte(dashes)))
	switch {
	case !hasLabel || !hasEnd:
		return PEMTruncated
	case !bytes.ContainsAny(body, "\r\n"):
		return PEMOneLine
	case string(label) == "OPENSSH PRIVATE KEY" && !bytes.HasSuffix(secret, []byte("\n")):
		return PEMNoNewline
	}
	return ""
}
