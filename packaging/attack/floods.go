package main

import (
	"fmt"
	"strconv"
	"time"
)

func floodEmptyLines(s *setup) (int, string, error)   { return runFlood(s, "lines") }
func floodLongRequests(s *setup) (int, string, error) { return runFlood(s, "requests") }
func floodConnections(s *setup) (int, string, error)  { return runFlood(s, "connects") }

// runFlood floods the socket of project evil while a client of project web fetches a secret.
// The gets of this client may take at most 3 times as long as without the flood.
func runFlood(s *setup, kind string) (attempts int, noticed string, err error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	idle, err := measureIdle(b.socket("web"))
	if err != nil {
		return 0, "", err
	}
	before := b.usage()
	cmd, err := b.attacker(attackerUID, kind, b.socket("evil"), strconv.Itoa(int(s.flood/time.Second)))
	if err != nil {
		return 0, "", err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return 0, "", err
	}
	v := startVictim(b.socket("web"))
	time.Sleep(s.flood - time.Second/2)
	noticed, err = compare(s, v, idle)
	fmt.Fscan(out, &attempts)
	if waitErr := cmd.Wait(); err == nil {
		err = waitErr
	}
	if err == nil {
		err = b.recovered(before)
	}
	return attempts, noticed, err
}
