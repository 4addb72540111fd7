package main

import "time"

// A setup contains the options of all attacks.
type setup struct {
	keyhatchd string
	flood     time.Duration // how long each flood lasts
	small     bool          // an emulated machine: smaller counts, and no latencies
}

// count returns the number of attempts: fewer on an emulated machine.
func (s *setup) count(n int) int {
	if s.small {
		return max(1, n/50)
	}
	return n
}
