package main

import "time"

// A setup contains the options of all attacks.
type setup struct {
	keyhatchd string
	flood     time.Duration // how long each flood lasts
	small     bool          // make fewer attempts, and do not check times and processor time

	// printStacks ends the broker that was started last, and prints the stacks of its
	// goroutines. It is nil if no broker was started.
	printStacks func()
}

// count returns n, or a smaller number of attempts if s.small is true.
func (s *setup) count(n int) int {
	if s.small {
		return max(1, n/50)
	}
	return n
}
