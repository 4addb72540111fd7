package sidecar

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// BenchmarkStoreWriteToBroker measures the time from writing a secret into the store
// until the broker returns the new value. The baseline is the time from a direct push of
// a new value until the broker returns that value. The goal is a median of at most 50 ms and a
// 99th percentile of at most 100 ms. quietPeriod alone takes 20 ms.
func BenchmarkStoreWriteToBroker(b *testing.B) {
	benchmarkPropagation(b, func(b *testing.B, project *client.Project) func(string) {
		return func(value string) {
			for {
				got, err := project.Get(context.Background(), "A", 0)
				if err == nil && *got.Value == value {
					return
				}
			}
		}
	})
}

// BenchmarkStoreWriteToVisible measures the time from writing a secret into the store until a client
// that uses Watch has fetched the new value. The baseline is the time from a direct push until the
// client has fetched the pushed value. The goals are the same as for BenchmarkStoreWriteToBroker.
func BenchmarkStoreWriteToVisible(b *testing.B) {
	benchmarkPropagation(b, func(b *testing.B, project *client.Project) func(string) {
		ctx, cancel := context.WithCancel(context.Background())
		values, ended := make(chan string), make(chan struct{})
		go func() { // the cleanup ends this goroutine and waits for it
			defer close(ended)
			project.Watch(ctx, func(schema.ChangedEvent) {
				if got, err := project.Get(ctx, "A", 0); err == nil {
					select {
					case values <- *got.Value:
					case <-ctx.Done():
					}
				}
			})
		}()
		b.Cleanup(func() { cancel(); <-ended })
		return func(value string) {
			for got := ""; got != value; got = <-values {
			}
		}
	})
}

// benchmarkPropagation measures the time from a change of the store until waitForValue returns.
// It measures keyhatch-sidecar set, which renames a file, and a replaced link ..data. The
// baseline is the time from a direct push until waitForValue returns.
func benchmarkPropagation(b *testing.B, watch func(*testing.B, *client.Project) (waitForValue func(value string))) {
	for _, change := range []string{"set", "link"} {
		b.Run(change, func(b *testing.B) {
			h := newTestHost(b)
			waitForValue := watch(b, h.registerProject("A"))
			admin := h.dialAdmin()
			defer admin.Close()
			var pushes []time.Duration
			for n := range 100 {
				value := fmt.Sprint("by hand ", n)
				start := time.Now()
				if _, err := admin.Push(context.Background(), pushLine("A", value)); err != nil {
					b.Fatal(err)
				}
				waitForValue(value)
				pushes = append(pushes, time.Since(start))
			}
			write := h.setSecret
			if change == "link" {
				write = h.replaceDataLink
			}
			write("A", tripwire)
			h.runSidecar(func(c *Config) { c.Read = readInChild(h.store) })
			waitForValue(tripwire)
			var writes []time.Duration
			for n := 0; b.Loop(); n++ {
				value := fmt.Sprint("written ", n)
				start := time.Now()
				write("A", value)
				waitForValue(value)
				writes = append(writes, time.Since(start))
			}
			reportTimes(b, writes, pushes)
		})
	}
}

// BenchmarkRestartToHealed measures the time from the restart of a broker until the
// broker has the secrets again. The baseline is the time of a direct push. The goal is at
// most 150 ms.
func BenchmarkRestartToHealed(b *testing.B) {
	h := newTestHost(b)
	h.writeSecret("A", tripwire)
	h.runSidecar(nil)
	h.waitForNames("A")
	var heals, pushes []time.Duration
	for b.Loop() {
		h.server.Close()
		h.startBroker()
		start := time.Now()
		admin := h.dialAdmin()
		for {
			status, err := admin.Status(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			if status.SecretCount == 1 {
				break
			}
		}
		heals = append(heals, time.Since(start))
		start = time.Now()
		if _, err := admin.Push(context.Background(), pushLine("A", tripwire)); err != nil {
			b.Fatal(err)
		}
		pushes = append(pushes, time.Since(start))
		admin.Close()
	}
	reportTimes(b, heals, pushes)
}

// reportTimes reports the median and the 99th percentile of elapsed. It also reports the
// median of elapsed as a multiple of the median of baseline. Both come from the same
// benchmark run.
func reportTimes(b *testing.B, elapsed, baseline []time.Duration) {
	slices.Sort(elapsed)
	slices.Sort(baseline)
	median := elapsed[len(elapsed)/2]
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(median.Microseconds())/1000, "median-ms")
	b.ReportMetric(float64(elapsed[len(elapsed)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(median)/float64(baseline[len(baseline)/2]), "x-baseline")
}
