package main

import "fmt"

// A measurementError means that a measured number was larger than its limit. Other programs
// on the same machine can cause this, so the attack is run again. An attack that works
// exceeds the limit each time.
type measurementError struct{ text string }

func (e measurementError) Error() string { return e.text }

// exceeds returns a measurementError.
func exceeds(format string, args ...any) error {
	return measurementError{fmt.Sprintf(format, args...)}
}

// maxRuns is how often an attack is run until its measured numbers are within their limits.
const maxRuns = 3
