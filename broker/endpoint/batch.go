package endpoint

// maxWrite is the largest number of bytes that the broker writes with one system call. The kernel
// stores the data of a larger write in separate pages, which a client can move into pipes with
// splice(2). These pages still use memory of the broker, but the kernel no longer counts them as
// unread data. The data of a write of at most maxWrite bytes fit into one page, together with the
// 320 bytes that the kernel adds.
const maxWrite = 3584

// maxPieces is the largest number of pieces that the broker writes with one system call. It must
// not exceed 1024, the limit of the kernel.
const maxPieces = 512

// minRest is the free space that a batch needs for another reply, in bytes. A session sends a
// batch with less free space, because the next reply would probably not fit.
const minRest = 256

// A batch collects the replies to requests that arrived together. The session sends these replies
// with one system call, so they have at most maxWrite bytes in all.
type batch struct {
	pieces   [][]byte
	releases []func()
	size     int // number of bytes in all pieces
}

// fits reports whether a reply of size bytes can be added to the batch.
func (b *batch) fits(reply Reply, size int) bool {
	return b.size+size <= maxWrite && len(b.pieces)+len(reply.Pieces) <= maxPieces
}

func (b *batch) add(reply Reply, size int) {
	if reply.Line != nil {
		b.pieces = append(b.pieces, reply.Line)
	} else {
		b.pieces = append(b.pieces, reply.Pieces...)
	}
	if reply.Release != nil {
		b.releases = append(b.releases, reply.Release)
	}
	b.size += size
}

// clear removes all replies, and calls their Release functions.
func (b *batch) clear() {
	for _, release := range b.releases {
		release()
	}
	clear(b.pieces) // so that the batch refers to no secrets
	clear(b.releases)
	b.pieces, b.releases, b.size = b.pieces[:0], b.releases[:0], 0
}
