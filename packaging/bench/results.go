package main

import "slices"

// A series contains one result for each round.
type series []result

// A measure is one of the figures of a result.
type measure string

const (
	p50  measure = "p50"
	p99  measure = "p99"
	cpu  measure = "server CPU"
	rate measure = "rate"

	clientCPU measure = "client CPU"
	delay     measure = "delay of p99" // the delay that a second load causes
)

func (r result) value(m measure) float64 {
	switch m {
	case p50:
		return r.P50
	case p99:
		return r.P99
	case cpu:
		return r.ServerCPU
	case clientCPU:
		return r.ClientCPU
	case delay:
		return r.Delay
	}
	return r.PerSecond
}

func (s series) median(m measure) float64 { return median(s.values(m)) }

func (s series) values(m measure) (values []float64) {
	for _, r := range s {
		values = append(values, r.value(m))
	}
	return values
}

// ratio returns the median of the ratios of all rounds.
func (s series) ratio(m measure, baseline series) float64 { return median(s.ratios(m, baseline)) }

func (s series) ratios(m measure, baseline series) (ratios []float64) {
	for i, r := range s {
		ratios = append(ratios, r.value(m)/baseline[i].value(m))
	}
	return ratios
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
