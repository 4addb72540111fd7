package broker_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// secretsOfGeneration returns secrets for the push with generation n. Each value contains
// n and a hash of its text. The values are so long that the broker needs several writes
// for a response.
func secretsOfGeneration(names []string, n int) map[schema.SecretName]schema.Value {
	set := map[schema.SecretName]schema.Value{}
	for i, name := range names {
		text := fmt.Sprintf("%s %d %s ", tripwire, n, name)
		text += strings.Repeat(fmt.Sprint(n%10), 8000)
		sum := sha256.Sum256([]byte(text))
		text += " " + hex.EncodeToString(sum[:])
		if i%3 == 2 {
			set[schema.SecretName(name)] = schema.Value{Fields: map[schema.SecretName]string{"f": text}}
		} else {
			set[schema.SecretName(name)] = schema.Value{Text: text}
		}
	}
	return set
}

// readGeneration checks the hash in a value, and returns the generation that the value
// contains.
func readGeneration(value schema.SecretValue) (int, error) {
	text := *value.Value
	if value.Bundle {
		var fields map[string]string
		if err := json.Unmarshal([]byte(text), &fields); err != nil {
			return 0, fmt.Errorf("the bundle is not valid JSON")
		}
		text = fields["f"]
	}
	i := strings.LastIndexByte(text, ' ')
	if i < 0 {
		return 0, fmt.Errorf("the value of %d bytes has no hash", len(text))
	}
	sum := sha256.Sum256([]byte(text[:i]))
	if hex.EncodeToString(sum[:]) != text[i+1:] {
		return 0, fmt.Errorf("the hash of the value is wrong: the value comes from several pushes or was wiped during the write")
	}
	var n int
	_, err := fmt.Sscanf(text, tripwire+" %d", &n)
	return n, err
}

// TestReadsAreOfOneGeneration runs pushes, clears, fast readers, and slow readers
// concurrently. Every response to a get-many must be complete, and all its values must
// have the same generation. The generation must not be older than a push that was
// acknowledged before the request.
func TestReadsAreOfOneGeneration(t *testing.T) {
	s := newServer(t)
	names := make([]string, 30)
	for i := range names {
		names[i] = fmt.Sprintf("S%d", i)
	}
	s.register(t, "api", names...)
	pushes := 150
	if testing.Short() {
		pushes = 30
	}
	var acknowledged atomic.Int64 // the generation of the last acknowledged push
	done := make(chan struct{})
	var wg sync.WaitGroup
	fail := func(format string, args ...any) { t.Errorf(format, args...) }

	var reads, empty, cut atomic.Int64
	for reader := range 4 {
		slow := reader%2 == 1
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				before := acknowledged.Load()
				answer, err := getMany(s.projectSocket("api"), slow)
				if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
					// On a busy machine, the snapshot can expire before a reader has read the
					// response. The broker then ends the connection.
					cut.Add(1)
					continue
				}
				if err != nil {
					fail("get-many: %v", err)
					return
				}
				if answer.Generation == 0 {
					empty.Add(1)
					continue
				}
				reads.Add(1)
				if int64(answer.Generation) < before {
					fail("the response has generation %d, but push %d was already acknowledged", answer.Generation, before)
				}
				if len(answer.Secrets) != len(names) {
					fail("the response has %d secrets, want %d", len(answer.Secrets), len(names))
				}
				for _, value := range answer.Secrets {
					n, err := readGeneration(value)
					if err != nil || uint64(n) != answer.Generation {
						fail("the response of generation %d has a value of generation %d: %v", answer.Generation, n, err)
					}
				}
			}
		})
	}
	admin := s.dialAdmin(t)
	for n := 1; n <= pushes; n++ {
		response, err := admin.Push(context.Background(), pushLine(schema.PushRequest{Secrets: secretsOfGeneration(names, n)}))
		if err != nil || response.Generation != uint64(n) {
			t.Fatalf("push %d returned generation %d, error %v", n, response.Generation, err)
		}
		acknowledged.Store(int64(n))
		if n%10 == 0 {
			if err := admin.Clear(context.Background()); err != nil {
				t.Fatal(err)
			}
			answer, err := getMany(s.projectSocket("api"), false)
			if err != nil || answer.Generation != 0 {
				t.Fatalf("the response has generation %d after an acknowledged clear: %v", answer.Generation, err)
			}
		}
	}
	close(done)
	wg.Wait()
	if reads.Load() == 0 {
		t.Error("no reader received any secrets")
	}
	t.Logf("%d complete responses, %d responses without secrets, %d disconnected readers, %d pushes", reads.Load(), empty.Load(), cut.Load(), pushes)
}

// getMany requests all secrets of a project. If readSlowly is true, it reads the response
// in small pieces, so that a push replaces the snapshot while the broker writes the
// response.
func getMany(socket string, readSlowly bool) (schema.GetManyResponse, error) {
	if !readSlowly {
		return client.NewProject(socket).GetMany(context.Background(), nil, 0)
	}
	var answer schema.GetManyResponse
	c, err := net.Dial("unix", socket)
	if err != nil {
		return answer, err
	}
	defer c.Close()
	if err := c.(*net.UnixConn).SetReadBuffer(4096); err != nil {
		return answer, err
	}
	fmt.Fprintln(c, `{"op":"get-many"}`)
	var line []byte
	chunk := make([]byte, 2000)
	for {
		n, err := c.Read(chunk)
		line = append(line, chunk[:n]...)
		if bytes.IndexByte(chunk[:n], 0) >= 0 {
			return answer, errors.New("the broker sent wiped memory")
		}
		if err != nil {
			return answer, err
		}
		if line[len(line)-1] == '\n' {
			return answer, json.Unmarshal(line, &answer)
		}
		// Send another request, so that the pushing goroutine has time to run.
		_, _ = getSecret(socket)
	}
}

func getSecret(socket string) (schema.GetResponse, error) {
	return client.NewProject(socket).Get(context.Background(), "S0", 0)
}

// TestStalledReaderIsDisconnected uses a client that does not read its response. This
// client must not delay pushes or other connections. The broker must close its connection
// after the write timeout, and must not send wiped memory to it.
func TestStalledReaderIsDisconnected(t *testing.T) {
	s := newServer(t)
	names := []string{"S0"}
	s.register(t, "api", names...)
	big := strings.Repeat("9", 900<<10)
	s.push(t, map[schema.SecretName]schema.Value{"S0": {Text: tripwire + big}})
	stalled := connect(t, s.projectSocket("api"))
	fmt.Fprintln(stalled, `{"op":"get","name":"S0"}`)
	// If the first byte of the answer has arrived, the broker has read the request.
	if _, err := stalled.lines.Peek(1); err != nil {
		t.Fatal(err)
	}
	s.push(t, map[schema.SecretName]schema.Value{"S0": {Text: "next"}})
	if got := connect(t, s.projectSocket("api")).request(t, `{"op":"get","name":"S0"}`); got != `{"ok":true,"value":"next"}` {
		t.Errorf("the answer on another connection is %s", got)
	}
	// The broker must end the stalled connection. The connection must count against the limit of
	// the project until the client has read the answer.
	ended, stop := wire.WatchClosed(stalled.Conn.(*net.UnixConn))
	<-ended
	stop()
	stalled.SetReadDeadline(time.Time{})
	if n := s.connections(t, "api"); n != 2 {
		t.Errorf("%d connections are counted, want 2: the stalled connection and the other connection", n)
	}
	var got []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := stalled.lines.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			break
		}
	}
	if len(got) >= len(big) {
		t.Errorf("a client that did not read within the write timeout of %v received all %d bytes", schema.WriteTimeout, len(got))
	}
	if strings.Contains(string(got), "\x00") {
		t.Error("the broker sent wiped memory")
	}
	waitUntil(t, func() bool { return s.connections(t, "api") == 1 })
}
