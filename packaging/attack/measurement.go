package main

import "fmt"

// A measurementError means that a measured number was larger than its limit. Other programs
// on the same machine can cause this, so the attack is run again. If the attack itself is the
// cause, the number will probably be larger than the limit in each run.
type measurementError struct{ text string }

func (e measurementError) Error() string { return e.text }

// exceeds returns a measurementError.
func exceeds(format string, args ...any) error {
	return measurementError{fmt.Sprintf(format, args...)}
}

// maxRuns is the maximum number of runs of one attack.
const maxRuns = 3
