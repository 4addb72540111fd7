package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// searchFiles returns an error if a file below root, except below the directory except,
// contains text in its name or its content.
func searchFiles(root, except, text string) error {
	return filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == except {
			return filepath.SkipDir
		}
		if bytes.Contains([]byte(path), []byte(text)) {
			return fmt.Errorf("the name of the file %s contains the value of a secret", path)
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		found, err := containsText(path, text)
		if err == nil && found {
			err = fmt.Errorf("the file %s contains the value of a secret", path)
		}
		return err
	})
}

func containsText(path, text string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	// A text can be at the boundary of two blocks, so keep the end of the previous block.
	block, kept := make([]byte, 1<<20), 0
	for {
		n, err := f.Read(block[kept:])
		if bytes.Contains(block[:kept+n], []byte(text)) {
			return true, nil
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		end := kept + n
		kept = min(end, len(text)-1)
		copy(block, block[end-kept:end])
	}
}

// checkAuditLog returns the number of events in an audit log. It returns an error if a line is
// not one whole event, or if the log contains a name or a value of a secret.
func checkAuditLog(path string) (events int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for r := bufio.NewReader(f); ; events++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return events, nil
		}
		if err != nil {
			return events, fmt.Errorf("line %d of the audit log is not complete: %q: %w", events+1, line, err)
		}
		var event struct{ Time, Event string }
		if err := json.Unmarshal(line, &event); err != nil || event.Time == "" || event.Event == "" {
			return events, fmt.Errorf("line %d of the audit log is not one event: %q: %v", events+1, line, err)
		}
		for _, text := range []string{tripwire, nameTripwire} {
			if bytes.Contains(line, []byte(text)) {
				return events, fmt.Errorf("line %d of the audit log contains a name or a value of a secret", events+1)
			}
		}
	}
}
