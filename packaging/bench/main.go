// Command bench measures a real keyhatchd next to other servers on Unix sockets: echo servers
// in Go and in C, and redis. It prints a table, and it can write the same figures as JSON.
//
// The servers get their requests from the same client code, which makes system calls directly
// and checks every reply. In each round, each server is measured once. A ratio is the median
// of the ratios of all rounds, because figures of different rounds or machines cannot be
// compared. A missed goal does not change the exit code.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "client":
			return runClient(os.Stdin, out)
		case "serve":
			return serveBaseline(args[1], args[2])
		}
	}
	b := &bench{rounds: 7, duration: 200 * time.Millisecond}
	flag.StringVar(&b.keyhatchd, "keyhatchd", "bin/keyhatchd", "`PATH` of the keyhatchd program to measure")
	jsonFile := flag.String("json", "", "write the figures to this `FILE` as JSON")
	quick := flag.Bool("quick", false, "measure for a shorter time, which is less exact")
	flag.Parse()
	if *quick {
		b.duration = 40 * time.Millisecond
	}
	var err error
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "khbench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)

	r := newReport()
	skipped, err := b.compileEcho()
	if err != nil {
		return err
	}
	r.Conditions = b.conditions(skipped, b.findRedis())
	fmt.Fprintf(out, "%s, %s\n%s\n\n", r.Date, r.Command, r.Machine)
	for _, condition := range r.Conditions {
		fmt.Fprintln(out, condition)
	}
	for _, place := range placements() {
		rows, err := b.compare(place)
		if err != nil {
			return fmt.Errorf("%s: %w", place.name, err)
		}
		for _, row := range rows {
			row.print(out)
		}
		r.Rows = append(r.Rows, rows...)
	}
	if *jsonFile != "" {
		return r.writeJSON(*jsonFile)
	}
	return nil
}

// compare measures all servers on the processors of a placement.
func (b *bench) compare(place placement) ([]row, error) {
	f, err := b.startField(place.server)
	if err != nil {
		return nil, err
	}
	defer f.stop()
	rows, err := b.measureGets(f, place)
	if err != nil {
		return nil, err
	}
	if place.pinned() {
		pushes, err := b.measurePushes(f, place)
		if err != nil {
			return nil, err
		}
		rows = append(rows, pushes...)
	}
	beside, err := b.measureGetsBesidePushes(f, place)
	if err != nil {
		return nil, err
	}
	return append(rows, beside), f.broker.checkCounts()
}

// conditions describes how the servers are run.
func (b *bench) conditions(skipped ...string) (conditions []string) {
	_, values := secrets()
	for _, reason := range skipped {
		if reason != "" {
			conditions = append(conditions, reason)
		}
	}
	conditions = append(conditions,
		fmt.Sprintf("%s has its default settings and limits, except that a project can send %d requests per second (--request-rate). Its audit log is a file", version(b.keyhatchd), requestRate),
		fmt.Sprintf("a get and its reply have %d bytes each. The echo servers echo messages of the length of the reply", len(getReply(values[0]))))
	if b.redis != "" {
		conditions = append(conditions, version(b.redis)+" writes nothing to disk. It uses its own protocol, so its requests and replies have other lengths")
	}
	return append(conditions, fmt.Sprintf("medians of %d rounds of %v; xN.NN is the ratio to the first line; server CPU is per request", b.rounds, b.duration))
}
