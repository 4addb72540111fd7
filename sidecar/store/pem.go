package store

import (
	"bytes"
	"slices"
)

// A PEMProblem is a reason why programs probably cannot use a PEM text.
type PEMProblem string

// The problems of a PEM text.
const (
	PEMTruncated PEMProblem = "it has a line -----BEGIN without its line -----END, and is probably not complete"
	PEMOneLine   PEMProblem = "its line breaks are missing"
	// PEMNoNewline is only a problem for ssh, and only for keys in the format of OpenSSH.
	PEMNoNewline PEMProblem = "it does not end with a newline, because the sidecar ignores one newline"
)

// CheckPEM returns the most important problem of a secret that is a PEM text. If the secret is not a PEM
// text, or if it has no problem, CheckPEM returns "".
func CheckPEM(secret []byte) PEMProblem {
	const begin, end, dashes = "-----BEGIN ", "-----END ", "-----"
	if !bytes.HasPrefix(bytes.TrimSpace(secret), []byte(begin)) && !bytes.Contains(secret, []byte("\n"+begin)) {
		return ""
	}
	// A file can contain several blocks. A program that copies the file can fail in each of them.
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
