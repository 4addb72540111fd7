// Command bench measures a real keyhatchd next to other servers on Unix sockets: echo servers
// in Go and in C, and redis. It prints tables, and can write the same figures as JSON.
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
	"strings"
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
	b := &bench{rounds: 7, duration: 150 * time.Millisecond}
	flag.StringVar(&b.keyhatchd, "keyhatchd", "bin/keyhatchd", "`PATH` of the keyhatchd program to measure")
	jsonFile := flag.String("json", "", "write the figures to this `FILE` as JSON")
	quick := flag.Bool("quick", false, "measure for a shorter time, which is less exact")
	flag.Parse()
	if *quick {
		b.duration = 20 * time.Millisecond
	}
	var err error
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "khbench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)

	b.out, b.report = out, newReport()
	skipped, err := b.compileEcho()
	if err != nil {
		return err
	}
	b.report.Conditions = b.conditions(skipped, b.findRedis())
	b.report.printHeader(out)
	for _, place := range placements() {
		if err := b.compare(place); err != nil {
			return fmt.Errorf("%s: %w", place.name, err)
		}
	}
	if err := b.measureScale(); err != nil {
		return err
	}
	if *jsonFile != "" {
		return b.report.writeJSON(*jsonFile)
	}
	return nil
}

// compare measures all servers on the processors of a placement.
func (b *bench) compare(place placement) error {
	s, err := b.startServers(place.server)
	if err != nil {
		return err
	}
	defer s.stop()
	if err := b.measureGets(s, place); err != nil {
		return err
	}
	if place.pinned() {
		if err := b.measurePushes(s, place); err != nil {
			return err
		}
	}
	// Do not measure gets beside pushes if client and server share one processor. A push would
	// then take processor time from the client that gets.
	if place.client != place.server || !place.pinned() {
		if err := b.measureGetsBesidePushes(s, place); err != nil {
			return err
		}
	}
	return s.broker.checkCounts()
}

// measureScale measures servers with many projects or connections, the time and memory of
// starts, and the sizes of program files.
func (b *bench) measureScale() error {
	for _, measure := range []func() ([]property, error){
		b.measureProjects, b.measureConnections, b.measureDeclaredStarts, b.measureStarts, b.measureSizes,
	} {
		properties, err := measure()
		if err != nil {
			return err
		}
		b.report.Properties = append(b.report.Properties, properties...)
	}
	printProperties(b.out, b.report.Properties)
	return nil
}

// conditions describes how the servers are run and measured.
func (b *bench) conditions(skipped ...string) (conditions []string) {
	for _, reason := range skipped {
		if reason != "" {
			conditions = append(conditions, reason)
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	names, values := secrets()
	conditions = append(conditions,
		fmt.Sprintf("load average at the start: %s (other programs that run at the same time make the figures useless)", strings.Join(strings.Fields(string(load))[:3], " ")),
		fmt.Sprintf("%s has its default settings and limits, except that a project can send %d requests per second (--request-rate). Its audit log is a file", version(b.keyhatchd), requestRate),
		fmt.Sprintf("the clients get %d secrets, one after the other. A request has %d bytes, and its reply has the same length. The echo servers send back messages of this length", len(names), len(getReply(values[0]))),
		goSink+" reads a push, keeps nothing, and sends a short reply")
	if b.redis != "" {
		conditions = append(conditions, version(b.redis)+" writes nothing to disk. It has its own protocol, so its requests and replies have other lengths. A push is an MSET")
	}
	return append(conditions,
		fmt.Sprintf("the figures are medians of %d rounds of %v each. A ratio such as x1.00 is the median of the ratios of all rounds to the first line of the table", b.rounds, b.duration),
		"processor time is per request. If a round has at most 100 samples, its p99 is the time of its slowest sample",
		"the benchmark does not measure how much memory a request allocates. Go tests in the directory broker check this for keyhatchd")
}
