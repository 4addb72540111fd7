package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// A victim is a client of a project that is not the attacker's project. It fetches a secret
// again and again over one connection, at a rate below the request limit.
type victim struct {
	stop    chan struct{}
	done    sync.WaitGroup
	times   []time.Duration
	failure error
}

func startVictim(socket string) *victim {
	v := &victim{stop: make(chan struct{})}
	v.done.Go(func() { v.failure = v.run(socket) })
	return v
}

func (v *victim) run(socket string) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	tick := time.NewTicker(10 * time.Millisecond) // 100 requests per second
	defer tick.Stop()
	buffer := make([]byte, 4096)
	for {
		select {
		case <-v.stop:
			return nil
		case <-tick.C:
		}
		began := time.Now()
		c.SetDeadline(began.Add(20 * time.Second))
		if _, err := c.Write([]byte(`{"op":"get","name":"A"}` + "\n")); err != nil {
			return err
		}
		n, err := c.Read(buffer)
		if err != nil {
			return err
		}
		if !strings.Contains(string(buffer[:n]), secret) {
			return errors.New("the other project got a wrong answer")
		}
		v.times = append(v.times, time.Since(began))
	}
}

// finish stops the victim and returns the number of its gets and their median time.
func (v *victim) finish() (gets int, median time.Duration, err error) {
	close(v.stop)
	v.done.Wait()
	if v.failure == nil && len(v.times) == 0 {
		v.failure = errors.New("the other project could not fetch its secret")
	}
	if v.failure != nil {
		return 0, 0, v.failure
	}
	slices.Sort(v.times)
	return len(v.times), v.times[len(v.times)/2], nil
}

// measureIdle returns the median time of a victim's gets while no attack is running.
func measureIdle(socket string) (time.Duration, error) {
	v := startVictim(socket)
	time.Sleep(2 * time.Second)
	_, median, err := v.finish()
	return median, err
}

// compare stops a victim and describes the effect of an attack on its gets. idle is the median
// time of a get without an attack. compare returns an error if a get failed, or if the median
// time was more than 3 times as long as idle.
func compare(s *setup, v *victim, idle time.Duration) (noticed string, err error) {
	gets, median, err := v.finish()
	if err != nil {
		return "", err
	}
	ratio := float64(median) / float64(idle)
	noticed = fmt.Sprintf("%d gets took %.1f times as long as without the attack", gets, ratio)
	if ratio > 3 && !s.small {
		return noticed, exceeds("the gets of the other project took too long")
	}
	return noticed, nil
}
