package endpoint

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// While the send buffer of a connection outside the poller (see socket) is full, the broker tries
// to send again and again. The time between two attempts begins with minWriteInterval, doubles,
// and is at most maxWriteInterval.
const (
	minWriteInterval = 100 * time.Microsecond
	maxWriteInterval = 10 * time.Millisecond
)

// expiryDelay is the time that a write may take even if its answer has expired (see
// Reply.Expired). The time is long enough for a client that reads its answer at once.
const expiryDelay = 250 * time.Millisecond

// responseUnit is the size of a part of a response, in bytes. Each full part of a response counts
// as one more request against Handler.Limit.
const responseUnit = 16 << 10

// A sender sends the replies of a session.
type sender struct {
	conn  *conn
	drain *drainState

	batch  *batch // replies that have not been sent yet, or nil
	failed bool   // a reply was not sent completely, so no other reply can be sent
}

// waitForRoom waits until the client has read most of its answers, so that the first bytes of the
// next answer fit into the send buffer. Without this wait, the handler could look up a secret for
// an answer that the session can send only later. If the broker acknowledged a push or a clear in
// the meantime, the answer would contain an old secret. waitForRoom returns an error if the
// client does not read its answers within the write timeout.
func (s *sender) waitForRoom() error {
	if s.batch != nil {
		return nil // there was room for a whole batch before its first reply was added
	}
	var wait blockedWrite
	for !s.conn.isWritable() {
		if err := s.waitToSend(&wait, nil); err != nil {
			return err
		}
	}
	return nil
}

// add adds a reply to the batch b, and then sends the batch if it is almost full. If the reply
// does not fit into the batch, add sends the batch and then the reply at once. add returns false
// if a reply could not be sent.
func (s *sender) add(b *batch, reply Reply) bool {
	size := reply.size()
	if !b.fits(reply, size) {
		return s.write(reply)
	}
	b.add(reply, size)
	s.batch = b
	if b.size > maxWrite-minRest {
		return s.flush() // send now, because the handler must not look up the next secret before there is room for the answer
	}
	return true
}

// flush sends the batch, if there is one. It returns false if a reply could not be sent
// completely, now or earlier.
func (s *sender) flush() bool {
	if s.batch != nil {
		s.sendBatch()
		// Wait before the session reads the next request. Otherwise a client that does not
		// read its answers could wake the broker again and again.
		s.conn.waitUntilWritable()
	}
	return !s.failed
}

// sendBatch sends the batch. It does not wait for the client, because a push could replace the
// secrets in the replies during the wait. The send buffer has room for the batch (see
// waitForRoom). If the kernel nevertheless does not accept the whole batch, sendBatch sets
// s.failed, and the session ends.
func (s *sender) sendBatch() {
	b := s.batch
	s.batch = nil
	s.conn.resetWakes()
	n, err := s.conn.send(b.pieces)
	if err != nil || n < b.size {
		s.failed = true
	}
	b.clear()
}

// write sends the batch, if there is one, and then a reply. It returns false if a reply could not
// be sent completely, for example because the client did not read it within the write timeout.
func (s *sender) write(reply Reply) bool {
	defer release(reply)
	if s.batch != nil {
		s.sendBatch()
	}
	if s.failed {
		return false
	}
	s.conn.resetWakes()
	s.failed = s.writePieces(reply.pieces(), reply.Expired) != nil
	// Wait before the session reads the next request. Otherwise a client that does not read
	// its answers could wake the broker again and again.
	s.conn.waitUntilWritable()
	return !s.failed
}

func release(reply Reply) {
	if reply.Release != nil {
		reply.Release()
	}
}

// writePieces sends all pieces, with at most maxWrite bytes per system call. While the send
// buffer is full, it waits with waitToSend.
func (s *sender) writePieces(pieces net.Buffers, expired func() bool) error {
	var wait blockedWrite
	sent := 0
	for len(pieces) > 0 {
		n, err := s.conn.send(firstBytes(pieces, maxWrite))
		switch err {
		case nil:
			pieces = dropBytes(pieces, n)
			wait.backoff.reset()
			if sent += n; sent >= responseUnit {
				sent = 0
				s.conn.resetWakes()
			}
		case unix.EAGAIN:
			if err := s.waitToSend(&wait, expired); err != nil {
				return err
			}
		default:
			return err
		}
	}
	return nil
}

// firstBytes returns the first size bytes of the pieces, or all bytes if there are fewer. It returns
// at most maxPieces pieces. It allocates memory only if it must cut a piece.
func firstBytes(pieces [][]byte, size int) [][]byte {
	for i, piece := range pieces {
		if size == 0 || i == maxPieces {
			return pieces[:i]
		}
		if size < len(piece) {
			return append(pieces[:i:i], piece[:size])
		}
		size -= len(piece)
	}
	return pieces
}

// dropBytes returns the pieces without their first size bytes.
func dropBytes(pieces net.Buffers, size int) net.Buffers {
	for len(pieces) > 0 && size >= len(pieces[0]) {
		size -= len(pieces[0])
		pieces = pieces[1:]
	}
	if size > 0 {
		pieces[0] = pieces[0][size:]
	}
	return pieces
}

// A blockedWrite is a write that waits for the client.
type blockedWrite struct {
	began   time.Time // when the write began to wait; zero before that
	backoff backoff
}

// waitToSend waits until the broker should try to send again. It returns an error if the write
// timeout is over, or if the answer has expired. It checks both after each wait, so that a client
// cannot extend a write by reading slowly.
func (s *sender) waitToSend(wait *blockedWrite, expired func() bool) error {
	if wait.began.IsZero() {
		wait.began = time.Now()
	}
	if s.conn.inPoller() {
		if err := s.conn.waitUntilWritable(); err != nil {
			return err
		}
	} else {
		wait.backoff.sleep(minWriteInterval, maxWriteInterval)
	}
	if expired != nil && time.Since(wait.began) > expiryDelay && expired() {
		return errors.New("the answer has expired")
	}
	if s.drain.isWriteOver(wait.began) {
		return os.ErrDeadlineExceeded
	}
	return nil
}
