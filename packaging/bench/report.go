package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// A report contains everything that the benchmark has measured.
type report struct {
	Date       string     `json:"date"`
	Command    string     `json:"command"`
	Machine    string     `json:"machine"`
	Conditions []string   `json:"conditions"`
	Rows       []row      `json:"rows"`
	Properties []property `json:"properties"`
}

// A row compares several servers under the same load.
type row struct {
	Name      string   `json:"name"`
	Placement string   `json:"placement"`
	Figures   []figure `json:"figures"`
	Goals     []goal   `json:"goals"`
}

// A figure contains the medians of one server. Ratios are relative to the baseline of the
// figure. They are medians of the ratios of all rounds. 0 means: not measured.
type figure struct {
	Server    string              `json:"server"`
	P50       float64             `json:"p50_us"`
	P99       float64             `json:"p99_us,omitzero"`
	ServerCPU float64             `json:"server_cpu_us,omitzero"`
	ClientCPU float64             `json:"client_cpu_us,omitzero"`
	PerSecond float64             `json:"per_second"`
	Baseline  string              `json:"baseline"`
	Ratios    map[measure]float64 `json:"ratios"`
}

// A goal is a limit for a measure of Server, which is keyhatchd under a certain load. If there
// is a baseline, the limit is a ratio to the baseline. Otherwise, the limit is in microseconds.
// Exactly one of AtMost and AtLeast is set. Measured is the median of all rounds. If Lowest and
// Highest are far apart, other programs have probably disturbed the rounds.
type goal struct {
	Server   string  `json:"server"`
	Measure  measure `json:"measure"`
	Baseline string  `json:"baseline,omitzero"`
	AtMost   float64 `json:"at_most,omitzero"`
	AtLeast  float64 `json:"at_least,omitzero"`
	Measured float64 `json:"measured"`
	Lowest   float64 `json:"lowest"`
	Highest  float64 `json:"highest"`
	Met      bool    `json:"met"`
}

// A property has one value for each server, without rounds or ratios. AtMost is a goal for the
// last server, or 0 if there is no goal.
type property struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Values []value `json:"values"`
	AtMost float64 `json:"at_most,omitzero"`
	Met    bool    `json:"met"`
}

// newProperty returns a property. If atMost is not 0, keyhatchd must be the last server.
func newProperty(name, unit string, atMost float64, values ...value) property {
	return property{name, unit, values, atMost, atMost == 0 || values[len(values)-1].Value <= atMost}
}

type value struct {
	Server string  `json:"server"`
	Value  float64 `json:"value"`
}

func newReport() *report {
	var name unix.Utsname
	unix.Uname(&name)
	return &report{
		Date:    time.Now().UTC().Format(time.RFC3339),
		Command: strings.Join(os.Args, " "),
		Machine: fmt.Sprintf("%d processors, %s, Linux %s, %s", len(processors()), processorName(), unix.ByteSliceToString(name.Release[:]), runtime.Version()),
	}
}

func (r *report) printHeader(out io.Writer) {
	fmt.Fprintf(out, "%s, %s\n%s\n\n", r.Date, r.Command, r.Machine)
	for _, condition := range r.Conditions {
		fmt.Fprintln(out, condition)
	}
}

func processorName() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// version returns the first line that the program prints with --version, or "".
func version(program string) string {
	out, _ := exec.Command(program, "--version").Output()
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// An entry is one server of a row, with its baseline.
type entry struct {
	server   string
	measured series
	baseline string
}

// entries returns the entries of all contenders. The first contender is the baseline.
func entries(all []*contender, measured map[string]series) (list []entry) {
	for _, c := range all {
		list = append(list, entry{c.name, measured[c.name], all[0].name})
	}
	return list
}

func newRow(name string, place placement, list []entry, goals []goal) row {
	r := row{Name: name, Placement: place.name, Goals: []goal{}}
	measured := map[string]series{}
	for _, e := range list {
		measured[e.server] = e.measured
	}
	for _, e := range list {
		s := e.measured
		f := figure{
			Server: e.server, P50: s.median(p50) / 1000, P99: s.median(p99) / 1000,
			ServerCPU: s.median(cpu) / 1000, ClientCPU: s.median(clientCPU) / 1000, PerSecond: s.median(rate),
			Baseline: e.baseline, Ratios: map[measure]float64{},
		}
		for _, m := range []measure{p50, p99, cpu, rate} {
			if s.median(m) > 0 && measured[e.baseline].median(m) > 0 {
				f.Ratios[m] = s.ratio(m, measured[e.baseline])
			}
		}
		r.Figures = append(r.Figures, f)
	}
	for _, g := range goals {
		if g.Server == "" {
			g.Server = keyhatchd
		}
		var rounds []float64
		if g.Baseline == "" {
			for _, v := range measured[g.Server].values(g.Measure) {
				rounds = append(rounds, v/1000)
			}
		} else if measured[g.Baseline] == nil {
			continue // the server of the baseline was not measured
		} else {
			rounds = measured[g.Server].ratios(g.Measure, measured[g.Baseline])
		}
		g.Measured, g.Lowest, g.Highest = median(rounds), slices.Min(rounds), slices.Max(rounds)
		g.Met = g.AtMost > 0 && g.Measured <= g.AtMost || g.AtLeast > 0 && g.Measured >= g.AtLeast
		r.Goals = append(r.Goals, g)
	}
	return r
}

func (r row) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s; %s\n", r.Name, r.Placement)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tp50 us\t\tp99 us\t\tserver CPU us\t\tper second\t\tclient CPU us\t")
	for _, f := range r.Figures {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", f.Server, number(1, f.P50), ratio(f.Ratios[p50]), number(1, f.P99), ratio(f.Ratios[p99]),
			number(2, f.ServerCPU), ratio(f.Ratios[cpu]), number(0, f.PerSecond), ratio(f.Ratios[rate]), number(2, f.ClientCPU))
	}
	table.Flush()
	for _, g := range r.Goals {
		fmt.Fprintln(out, "  "+g.String())
	}
}

func printProperties(out io.Writer, properties []property) {
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range properties {
		var values []string
		for _, v := range s.Values {
			values = append(values, v.Server+" "+number(2, v.Value)+" "+s.Unit)
		}
		goal := ""
		if s.AtMost > 0 {
			goal = fmt.Sprintf("goal: at most %v %s, ", s.AtMost, s.Unit) + verdict(s.Met)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", s.Name, strings.Join(values, ", "), goal)
	}
	table.Flush()
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}

func number(digits int, v float64) string {
	if v == 0 {
		return "-"
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

func ratio(v float64) string {
	if v == 0 {
		return ""
	}
	return "x" + number(2, v)
}

func (g goal) String() string {
	format, of := func(v float64) string { return number(0, v) + " us" }, ""
	if g.Baseline != "" {
		format, of = ratio, " of "+g.Baseline
	}
	limit := "at most " + format(g.AtMost)
	if g.AtLeast > 0 {
		limit = "at least " + format(g.AtLeast)
	}
	return fmt.Sprintf("goal: %s %s%s: median %s (rounds: %s to %s), %s", g.Measure, limit, of, format(g.Measured), format(g.Lowest), format(g.Highest), verdict(g.Met))
}

func (r *report) writeJSON(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
