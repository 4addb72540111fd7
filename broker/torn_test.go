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
	"github.com/keyhatch/keyhatch/schema"
)

// A generation's values carry its number and a hash, and are long enough for a
// response to need several writes.
func generationSet(names []string, n int) map[schema.SecretName]schema.Value {
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

// generationOf checks a value's hash and returns the generation it says.
func generationOf(value schema.SecretValue) (int, error) {
	text := *value.Value
	if value.Bundle {
		var fields map[string]string
		if err := json.Unmarshal([]byte(text), &fields); err != nil {
			return 0, fmt.Errorf("a bundle is not JSON")
		}
		text = fields["f"]
	}
	i := strings.LastIndexByte(text, ' ')
	if i < 0 {
		return 0, fmt.Errorf("a value of %d bytes has no hash", len(text))
	}
	sum := sha256.Sum256([]byte(text[:i]))
	if hex.EncodeToString(sum[:]) != text[i+1:] {
		return 0, fmt.Errorf("a value's hash is wrong: torn, or wiped while it was sent")
	}
	var n int
	_, err := fmt.Sscanf(text, tripwire+" %d", &n)
	return n, err
}

// TestNoTornReads races pushes, clears, fast readers and slow ones: every
// get-many is one generation, whole, and nobody sees time run backwards past an
// acknowledged push.
func TestNoTornReads(t *testing.T) {
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
	var acknowledged atomic.Int64 // pushes answered
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
				answer, err := getMany(s.project("api"), slow)
				if slow && errors.Is(err, io.EOF) {
					cut.Add(1) // too slow for the write deadline, on a machine that is busy
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
					fail("generation %d was answered after push %d was acknowledged", answer.Generation, before)
				}
				if len(answer.Secrets) != len(names) {
					fail("%d secrets of %d", len(answer.Secrets), len(names))
				}
				for _, value := range answer.Secrets {
					n, err := generationOf(value)
					if err != nil || uint64(n) != answer.Generation {
						fail("generation %d holds a value of generation %d: %v", answer.Generation, n, err)
					}
				}
			}
		})
	}
	admin := s.dial(t)
	for n := 1; n <= pushes; n++ {
		response, err := admin.Push(context.Background(), pushLine(schema.PushRequest{Secrets: generationSet(names, n)}))
		if err != nil || response.Generation != uint64(n) {
			t.Fatalf("push %d: generation %d, %v", n, response.Generation, err)
		}
		acknowledged.Store(int64(n))
		if n%10 == 0 {
			if err := admin.Clear(context.Background()); err != nil {
				t.Fatal(err)
			}
			answer, err := getMany(s.project("api"), false)
			if err != nil || answer.Generation != 0 {
				t.Fatalf("generation %d is answered after a clear was acknowledged: %v", answer.Generation, err)
			}
		}
	}
	close(done)
	wg.Wait()
	if reads.Load() == 0 {
		t.Error("no reader ever saw a set")
	}
	t.Logf("%d whole reads, %d of nothing, %d cut off, over %d pushes", reads.Load(), empty.Load(), cut.Load(), pushes)
}

// getMany asks for everything; slow takes the answer in small sips, so that the
// set it is from is replaced meanwhile.
func getMany(socket string, slow bool) (schema.GetManyResponse, error) {
	if !slow {
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
	sip := make([]byte, 2000)
	for {
		n, err := c.Read(sip)
		line = append(line, sip[:n]...)
		if bytes.IndexByte(sip[:n], 0) >= 0 {
			return answer, errors.New("wiped memory was sent")
		}
		if err != nil {
			return answer, err
		}
		if line[len(line)-1] == '\n' {
			return answer, json.Unmarshal(line, &answer)
		}
		// Let the pusher in.
		_, _ = getOne(socket)
	}
}

func getOne(socket string) (schema.GetResponse, error) {
	return client.NewProject(socket).Get(context.Background(), "S0", 0)
}

// TestStalledReader never takes its answer: pushes and other connections go on,
// and it is cut off after the write timeout, with not a zero in what it got.
func TestStalledReader(t *testing.T) {
	s := newServer(t)
	names := []string{"S0"}
	s.register(t, "api", names...)
	big := strings.Repeat("9", 900<<10)
	s.push(t, map[schema.SecretName]schema.Value{"S0": {Text: tripwire + big}})
	stalled := connect(t, s.project("api"))
	fmt.Fprintln(stalled, `{"op":"get","name":"S0"}`)
	// Until the first byte is there the request may not have been read.
	if _, err := stalled.lines.Peek(1); err != nil {
		t.Fatal(err)
	}
	s.push(t, map[schema.SecretName]schema.Value{"S0": {Text: "next"}})
	if got := connect(t, s.project("api")).ask(t, `{"op":"get","name":"S0"}`); got != `{"ok":true,"value":"next"}` {
		t.Errorf("another connection got %s", got)
	}
	stalled.SetReadDeadline(time.Now().Add(4 * schema.WriteTimeout))
	// The broker must end the connection by itself: wait until it has.
	for s.connections(t, "api") > 1 {
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
		t.Errorf("a reader that took nothing for %v got all %d bytes", schema.WriteTimeout, len(got))
	}
	if strings.Contains(string(got), "\x00") {
		t.Error("the reader was sent wiped memory")
	}
}

// connections asks status how many connections a project has.
func (s *testServer) connections(t *testing.T, name schema.ProjectName) int {
	t.Helper()
	admin, err := client.DialAdmin(context.Background(), s.admin)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	status, err := admin.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range status.Projects {
		if p.Name == name {
			return p.Connections
		}
	}
	return 0
}
