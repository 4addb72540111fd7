package endpoint

import (
	"sync"
	"sync/atomic"
)

// maxSystemCalls is the maximum number of system calls that run at the same time for the
// connections of one endpoint. Calls that open or close a connection do not count. Each system
// call needs a thread, and the number of the broker's threads is limited. The calls do not wait
// for the client, but the kernel can delay them, for example while it searches for free memory.
// Without maxSystemCalls, the clients of a few projects could then use up the threads, because
// the Go runtime keeps each thread that it has started.
const maxSystemCalls = 4

// systemCalls limits the number of system calls at the same time. While fewer than
// maxSystemCalls are running, a call costs two atomic operations.
type systemCalls struct {
	number atomic.Int64 // the number of calls that are running or waiting for begin to return

	once  sync.Once     // used by ended
	queue chan struct{} // the channel of ended
}

// ended returns a channel that receives a value when a call ends and another call is waiting. The
// channel is created when a call waits for the first time, because most endpoints never need it.
func (s *systemCalls) ended() chan struct{} {
	s.once.Do(func() { s.queue = make(chan struct{}, maxSystemCalls) })
	return s.queue
}

// begin must be called before system calls on a connection. If maxSystemCalls other calls are
// running, begin waits until one of them ends. So the system calls must not wait for the client.
func (s *systemCalls) begin() {
	if s.number.Add(1) > maxSystemCalls {
		<-s.ended()
	}
}

// end must be called after the system calls.
func (s *systemCalls) end() {
	if s.number.Add(-1) >= maxSystemCalls {
		s.ended() <- struct{}{}
	}
}

// do calls f between begin and end. The system calls in f must not wait for the client.
func (s *systemCalls) do(f func()) {
	s.begin()
	defer s.end()
	f()
}
