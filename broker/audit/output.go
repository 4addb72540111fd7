package audit

import (
	"errors"
	"io"
	"os"
)

// An output is the destination of the audit log's lines. If path is set, file and out are
// the open file at path.
type output struct {
	path string
	out  io.Writer
	file *os.File
	torn bool // true if the output ends with an incomplete line
}

// write writes one or more lines with one write. It returns how many bytes of lines were written,
// without the newline that ends an incomplete line.
func (o *output) write(lines []byte) (n int, err error) {
	if o.path != "" {
		if err := o.reopenIfRotated(); err != nil {
			return 0, err
		}
	}
	missing := 0 // length of the newline that ends an incomplete line of an earlier write
	if o.torn {
		missing = 1
		lines = append([]byte{'\n'}, lines...)
	}
	n, err = o.out.Write(lines)
	if n > 0 {
		o.torn = lines[n-1] != '\n'
	}
	return max(0, n-missing), err
}

// reopenIfRotated opens path again if path no longer leads to the open file, for example
// after log rotation.
func (o *output) reopenIfRotated() error {
	open, err := o.file.Stat()
	if err != nil {
		return err
	}
	current, err := os.Stat(o.path)
	if err == nil && os.SameFile(open, current) {
		return nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return o.reopen()
}

func (o *output) reopen() error {
	file, err := os.OpenFile(o.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	o.close()
	o.file, o.out, o.torn = file, file, isTorn(file, o.path)
	return nil
}

// isTorn reports whether the last line of a file is incomplete. This can happen if an earlier
// broker was killed during a write. If path is not a regular file or cannot be read, isTorn
// returns false.
func isTorn(file *os.File, path string) bool {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	reader, err := os.Open(path) // file is open for writing only
	if err != nil {
		return false
	}
	defer reader.Close()
	last := make([]byte, 1)
	_, err = reader.ReadAt(last, info.Size()-1)
	return err == nil && last[0] != '\n'
}

func (o *output) close() {
	if o.file != nil {
		o.file.Close()
	}
}
