package main

import (
	"fmt"
	"os"
	"sync"
)

// maxPrinted is the number of problems that are printed. Further problems are only counted.
const maxPrinted = 20

// problems counts everything that went wrong.
type problems struct {
	mu    sync.Mutex
	count int
}

func (p *problems) add(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	if p.count <= maxPrinted {
		fmt.Fprintf(os.Stderr, "PROBLEM: "+format+"\n", args...)
	}
}

func (p *problems) total() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}
