package main

import (
	"testing"
)

func TestRatioIsTheMedianOfTheRatiosOfAllRounds(t *testing.T) {
	baseline := series{{P50: 1}, {P50: 10}, {P50: 100}}
	measured := series{{P50: 3}, {P50: 20}, {P50: 100}} // the ratios to the baseline are 3, 2, and 1
	if ratio := measured.ratio(p50, baseline); ratio != 2 {
		t.Errorf("the ratio is %v, want 2", ratio)
	}
}

func TestGoals(t *testing.T) {
	echo := series{{P50: 10_000, PerSecond: 1000}}
	keyhatch := series{{P50: 12_000, PerSecond: 800}}
	for _, test := range []struct {
		goal     goal
		measured float64
		met      bool
	}{
		{goal{Measure: p50, Baseline: goEcho, AtMost: 1.2}, 1.2, true},
		{goal{Measure: p50, Baseline: goEcho, AtMost: 1.1}, 1.2, false},
		{goal{Measure: rate, Baseline: goEcho, AtLeast: 0.8}, 0.8, true},
		{goal{Measure: rate, Baseline: goEcho, AtLeast: 0.9}, 0.8, false},
		{goal{Measure: p50, AtMost: 12}, 12, true},
		{goal{Measure: p50, AtMost: 11}, 12, false},
	} {
		r := newRow("", placement{}, []entry{{goEcho, echo, goEcho}, {keyhatchd, keyhatch, goEcho}}, []goal{test.goal})
		if got := r.Goals[0]; got.Measured != test.measured || got.Met != test.met {
			t.Errorf("%s", got)
		}
	}
	r := newRow("", placement{}, []entry{{goEcho, echo, goEcho}, {keyhatchd, keyhatch, goEcho}}, []goal{{Measure: p50, Baseline: redis, AtMost: 1}})
	if len(r.Goals) > 0 {
		t.Errorf("there is a goal for a baseline that was skipped: %s", r.Goals[0])
	}
}
