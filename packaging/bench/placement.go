package main

import "golang.org/x/sys/unix"

// A placement is the assignment of clients and servers to processors. -1 means all processors.
type placement struct {
	name           string
	client, server int
}

func (p placement) pinned() bool { return p.server >= 0 }

func placements() []placement {
	cpus := processors()
	all := []placement{{"client and server on one processor", cpus[0], cpus[0]}}
	if len(cpus) > 1 {
		all = append(all, placement{"client and server on two processors", cpus[0], cpus[1]}, placement{"not pinned", -1, -1})
	}
	return all
}

// processors returns the processors that this process can use.
func processors() (cpus []int) {
	var set unix.CPUSet
	unix.SchedGetaffinity(0, &set)
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}
