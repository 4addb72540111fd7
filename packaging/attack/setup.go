package main

import "time"

// A setup contains the options of all attacks.
type setup struct {
	keyhatchd string
	flood     time.Duration // how long each flood lasts
	small     bool          // make fewer attempts and ignore how long requests take
	broker    *broker       // the broker that was started last
}

// count returns n, or a smaller number of attempts if s.small is true.
func (s *setup) count(n int) int {
	if s.small {
		return max(1, n/50)
	}
	return n
}
