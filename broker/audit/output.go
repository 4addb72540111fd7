package audit

import (
	"errors"
	"io"
	"os"
)

// An output is the place that lines are written to. If path is set, out is the
// file at path.
type output struct {
	path string
	out  io.Writer
	file *os.File
	torn bool // an error cut the last line short
}

func (o *output) writeLine(line []byte) error {
	if o.path != "" {
		if err := o.reopenIfRotated(); err != nil {
			return err
		}
	}
	if o.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := o.out.Write(line)
	if n > 0 {
		o.torn = n < len(line)
	}
	return err
}

// reopenIfRotated opens the file again if its path leads to another file, or to
// none.
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
	o.file, o.out, o.torn = file, file, false
	return nil
}

func (o *output) close() {
	if o.file != nil {
		o.file.Close()
	}
}
