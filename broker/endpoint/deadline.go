package endpoint

import (
	"net"
	"sync"
	"time"
)

// longAgo is a time in the past. A wait with this deadline ends at once.
var longAgo = time.Unix(1, 0)

// A deadline limits how long a connection in the poller waits for events (see
// socket.waitForEvents). It costs almost nothing while requests arrive in time, because startTimer
// does not change a running timer that expires before the deadline. When this timer expires, await
// starts a new timer and continues to wait, unless the deadline has passed.
type deadline struct {
	conn *net.UnixConn

	mu    sync.Mutex // lock no other mutex while mu is locked
	time  time.Time  // guarded by mu; zero if there is no deadline
	timer time.Time  // guarded by mu; the write deadline of conn; zero if conn has no write deadline
}

// set sets the deadline of the next wait.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.time = t
}

// change sets the deadline, also of a wait that has already begun.
func (d *deadline) change(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.time = t
	d.startTimerLocked()
}

// isPast reports whether there is a deadline in the past.
func (d *deadline) isPast() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.time.IsZero() && !time.Now().Before(d.time)
}

// startTimer makes the wait that begins now end at the deadline or earlier. If there is no
// deadline, startTimer does nothing.
func (d *deadline) startTimer() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.startTimerLocked()
}

func (d *deadline) startTimerLocked() {
	if !d.time.IsZero() && (d.timer.IsZero() || d.time.Before(d.timer)) {
		d.setTimerLocked(d.time)
	}
}

// setTimer makes the current wait and later waits end at the time t, whatever the deadline is. If
// t is zero, it removes the timer.
func (d *deadline) setTimer(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.setTimerLocked(t)
}

// removeTimer must be called after a timer has expired and after a wait that used setTimer.
// Otherwise each later wait would end at once.
func (d *deadline) removeTimer() { d.setTimer(time.Time{}) }

func (d *deadline) setTimerLocked(t time.Time) {
	d.timer = t
	d.conn.SetWriteDeadline(t) // fails if the connection has left the poller; await then checks the deadline itself
}
