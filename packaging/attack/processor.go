package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// processorSeconds is how long an attack on the processor time lasts. In the first seconds,
// the attacker uses up the burst that the request limit allows.
const processorSeconds = 12

// useProcessor returns an attack that measures how much processor time the broker uses while
// an attacker of the given kind is running under the given uid.
func useProcessor(uid uint32, kind string) func(*setup) (int, string, error) {
	return func(s *setup) (int, string, error) {
		b, err := startBroker(s)
		if err != nil {
			return 0, "", err
		}
		defer b.remove()
		before := b.usage()
		attempts, share, err := b.measureProcessor(uid, kind)
		if err == nil && share > 10 && !s.small {
			err = exceeds("the broker used too much processor time")
		}
		if err == nil {
			err = b.recovered(before)
		}
		return attempts, fmt.Sprintf("%.1f%% of a processor", share), err
	}
}

// measureProcessor runs an attacker for processorSeconds. It returns the number of attempts
// and the processor time of the broker, in percent of one processor.
func (b *broker) measureProcessor(uid uint32, kind string) (attempts int, share float64, err error) {
	before := b.processorTime()
	attempts, _, err = b.attack(uid, kind, b.socket("evil"), strconv.Itoa(processorSeconds))
	used := b.processorTime() - before
	return attempts, 100 * used.Seconds() / processorSeconds, err
}

// inParallel calls attempt again and again in several goroutines, until the given number of
// seconds is over. Both results are the number of calls.
func inParallel(goroutines, seconds int, attempt func(end time.Time)) (attempts, succeeded int) {
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	var mu sync.Mutex
	var done sync.WaitGroup
	for range goroutines {
		done.Go(func() {
			count := 0
			for ; time.Now().Before(end); count++ {
				attempt(end)
			}
			mu.Lock()
			defer mu.Unlock()
			attempts += count
		})
	}
	done.Wait()
	return attempts, attempts
}

// abortAnswers requests a large secret. It reads most of the answer, so that the broker has
// done most of the work. Then it closes the connection before the broker has written the
// rest.
func abortAnswers(socket string, seconds int) (attempts, succeeded int) {
	return inParallel(8, seconds, func(end time.Time) {
		c := dialOrPause(socket)
		if c == nil {
			return
		}
		defer c.Close()
		c.Write([]byte(`{"op":"get","name":"BIG"}` + "\n"))
		c.SetReadDeadline(end)
		io.CopyN(io.Discard, c, 950<<10)
	})
}

// shutDownBlockedAnswer requests a large secret and reads only one byte, so the broker cannot
// finish the answer. Then it calls shutdown(2) again and again for 220 ms, during which the broker
// cannot drop the answer yet (expiryDelay in package endpoint).
func shutDownBlockedAnswer(socket string, seconds int) (attempts, succeeded int) {
	return inParallel(2, seconds, func(time.Time) {
		c := dialOrPause(socket)
		if c == nil {
			return
		}
		defer c.Close()
		c.Write([]byte(`{"op":"get","name":"BIG"}` + "\n"))
		c.SetReadDeadline(time.Now().Add(time.Second))
		c.Read(make([]byte, 1))
		for end := time.Now().Add(220 * time.Millisecond); time.Now().Before(end); {
			shutDownOnce(c, unix.SHUT_WR)
		}
	})
}

// shutDownReading opens almost as many connections as the broker allows, and leaves answers
// unread on every second connection. Then it shuts down the reading side of one connection
// after the other. It repeats the call on each connection for two seconds, or until the broker
// has ended the connection. Both results are the number of calls.
func shutDownReading(socket string, seconds int) (attempts, succeeded int) {
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	for time.Now().Before(end) {
		var open []*net.UnixConn
		for i := range 60 {
			c := dialOrPause(socket)
			if c == nil {
				break
			}
			if i%2 == 0 {
				c.Write([]byte(strings.Repeat("\n", 100)))
			}
			open = append(open, c)
		}
		for _, c := range open {
			for began := time.Now(); time.Since(began) < 2*time.Second && time.Now().Before(end) && !hasEnded(c); {
				for range 100 {
					shutDownOnce(c, unix.SHUT_RD)
				}
				attempts += 100
			}
			c.Close()
		}
	}
	return attempts, attempts
}

// sendSingleBytes sends long lines in single bytes, so that each byte can wake the broker.
func sendSingleBytes(socket string, seconds int) (attempts, succeeded int) {
	return sendPieces(socket, seconds, strings.Repeat(" ", 60<<10)+"\n")
}

// sendSingleBytesWhileLimited does the same as sendSingleBytes, but with shorter lines. The
// broker often waits for the request limit while the bytes arrive.
func sendSingleBytesWhileLimited(socket string, seconds int) (attempts, succeeded int) {
	return sendPieces(socket, seconds, strings.Repeat(" ", 200)+"\n")
}

// sendSingleBytesWhileWaiting sends single bytes while its previous request waits for a
// secret.
func sendSingleBytesWhileWaiting(socket string, seconds int) (attempts, succeeded int) {
	return sendPieces(socket, seconds, `{"op":"get","name":"MISSING","wait_ms":20}`+strings.Repeat(" ", 200)+"\n")
}

// sendPieces sends a line again and again over several connections, in single bytes, and
// reads the answers. Both results are the number of lines.
func sendPieces(socket string, seconds int, line string) (attempts, succeeded int) {
	var mu sync.Mutex
	lines := 0
	inParallel(16, seconds, func(end time.Time) {
		c := dialOrPause(socket)
		if c == nil {
			return
		}
		defer c.Close()
		c.SetDeadline(end)
		go io.Copy(io.Discard, c)
		sent := 0
		for err := error(nil); err == nil; sent++ {
			for i := 0; i < len(line) && err == nil; i++ {
				_, err = c.Write([]byte{line[i]})
			}
		}
		mu.Lock()
		defer mu.Unlock()
		lines += sent
	})
	return lines, lines
}

// sendLongLines sends lines that are too long. It uses a new connection for each line.
func sendLongLines(socket string, seconds int) (attempts, succeeded int) {
	line := []byte(strings.Repeat("x", 1<<20) + "\n")
	return inParallel(8, seconds, func(end time.Time) {
		c := dialOrPause(socket)
		if c == nil {
			return
		}
		defer c.Close()
		c.SetDeadline(end)
		c.Write(line)
		c.CloseWrite()
		io.Copy(io.Discard, c)
	})
}

// readSlowly measures how long the broker keeps an answer that the attacker reads slowly, in
// small parts.
func readSlowly(s *setup) (int, string, error) {
	b, err := startBroker(s)
	if err != nil {
		return 0, "", err
	}
	defer b.remove()
	attempts, milliseconds, err := b.attack(attackerUID, "trickle", b.socket("evil"), "1")
	if err == nil && milliseconds > 3000 && !s.small {
		err = exceeds("the broker kept the answer for too long")
	}
	return attempts, fmt.Sprintf("the broker kept the answer for %d ms", milliseconds), err
}

// readAnswerSlowly requests a large secret and reads the answer in parts. The broker can
// write more whenever the client has read 24 KiB. The second result is the time in
// milliseconds until the answer ended.
func readAnswerSlowly(socket string, _ int) (attempts, milliseconds int) {
	c, err := dial(socket)
	if err != nil {
		return 0, 0
	}
	defer c.Close()
	began := time.Now()
	c.Write([]byte(`{"op":"get","name":"BIG"}` + "\n"))
	for part := make([]byte, 26<<10); err == nil && !bytes.Contains(part, []byte("\n")); {
		time.Sleep(150 * time.Millisecond)
		_, err = io.ReadAtLeast(c, part, 1)
	}
	return 1, int(time.Since(began).Milliseconds())
}

// dialOrPause connects to a socket. If this fails, for example because the backlog is full,
// it waits for a moment and returns nil.
func dialOrPause(socket string) *net.UnixConn {
	c, err := dial(socket)
	if err != nil {
		time.Sleep(time.Millisecond)
		return nil
	}
	return c
}
