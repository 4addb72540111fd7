package broker_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// newServerWithToken starts a server that requires an admin token. At the end of the test, it
// checks that the log does not contain the token.
func newServerWithToken(t *testing.T) (s *testServer, tokenFile string) {
	t.Helper()
	s = newServerWithConfig(t, func(config *broker.Config) {
		tokenFile = config.RuntimeDir + "-token"
		config.AdminTokenFile = tokenFile
	})
	t.Cleanup(func() {
		if token, err := os.ReadFile(tokenFile); err == nil && strings.Contains(s.log.String(), strings.TrimSpace(string(token))) {
			t.Error("the log contains the token")
		}
	})
	return s, tokenFile
}

func readToken(t *testing.T, tokenFile string) string {
	t.Helper()
	content, err := os.ReadFile(tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(content), "\n")
}

func authLine(token string) string { return `{"op":"auth","token":"` + token + `"}` }

func dialWithToken(t *testing.T, s *testServer, tokenFile string) *client.Admin {
	t.Helper()
	admin, err := client.DialAdminWithToken(context.Background(), s.adminSocket, tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	return admin
}

// TestAdminTokenIsRequired opens connections and begins each one with a line that is not a valid
// auth request. The broker must answer every connection with the same refusal, ignore all other
// lines of the connection, and change nothing.
func TestAdminTokenIsRequired(t *testing.T) {
	s, tokenFile := newServerWithToken(t)
	token := readToken(t, tokenFile)
	push := `{"op":"push-creds","secrets":{"A":"` + tripwire + `"}}`
	refusals := map[string]bool{}
	for name, lines := range map[string]string{
		"other op":          `{"op":"ping"}`,
		"push":              push,
		"op before auth":    push + "\n" + authLine(token),
		"long push":         `{"op":"push-creds","secrets":{"A":"` + strings.Repeat("x", schema.MaxPush/2) + `"}}` + "\n" + authLine(token),
		"too long line":     strings.Repeat("x", 17*schema.MaxPush),
		"empty line":        "\n" + authLine(token),
		"no token":          `{"op":"auth"}` + "\n" + authLine(token),
		"empty token":       authLine("") + "\n" + push,
		"wrong token":       authLine(strings.Repeat("0", 64)) + "\n" + push,
		"upper case":        authLine(strings.ToUpper(token)+"") + "\n" + push,
		"first half":        authLine(token[:32]),
		"token with suffix": authLine(token + "0"),
		"zero byte":         authLine(token + `\u0000`),
		"number":            `{"op":"auth","token":1}`,
		"null":              `{"op":"auth","token":null}`,
		"array":             `{"op":"auth","token":["` + token + `"]}`,
		"two tokens":        `{"op":"auth","token":"x","token":"` + token + `"}`,
		"other case of op":  `{"OP":"auth","token":"` + token + `"}`,
		"wrong op":          `{"op":"Auth","token":"` + token + `"}`,
		"not an object":     `"` + token + `"`,
		"only the token":    token,
		"trailing data":     authLine(token) + "x",
		"invalid UTF-8":     "{\"op\":\"auth\",\"x\":\"\xff\",\"token\":\"" + token + `"}`,
		"padded":            authLine(token + strings.Repeat(" ", schema.MaxAuth)),
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, s.adminSocket)
			// The broker must end the connection before this deadline.
			c.SetReadDeadline(time.Now().Add(2 * schema.AuthTimeout))
			go func() { // ends when the broker ends the connection, or at the end of the test
				io.WriteString(c, lines+"\n")
			}()
			answer := c.readLine(t)
			if !strings.HasPrefix(answer, `{"ok":false,"code":"unauthorized",`) || !strings.Contains(answer, `"token_file":"`+tokenFile+`"`) {
				t.Errorf("the answer is %.200s, want unauthorized with the path of the token file", answer)
			}
			refusals[answer] = true
			if rest := c.readLine(t); rest != "" {
				t.Errorf("the broker sent another line: %.200s", rest)
			}
		})
	}
	if len(refusals) != 1 {
		t.Errorf("the refusals differ: %v", refusals)
	}
	if status, err := dialWithToken(t, s, tokenFile).Status(t.Context()); err != nil || status.Generation != 0 {
		t.Errorf("status returned generation %d, error %v, want no secrets", status.Generation, err)
	}
	s.Close()
	if token == "" || strings.Contains(s.log.String(), token) || strings.Contains(s.log.String(), token[:32]) {
		t.Error("the log contains the token")
	}
}

// TestSilentClientGetsOneRefusal checks that a client that does not send a whole first request
// gets nothing until AuthTimeout has passed, and then one refusal.
func TestSilentClientGetsOneRefusal(t *testing.T) {
	s, tokenFile := newServerWithToken(t)
	var clients sync.WaitGroup
	for _, sent := range []string{"", "{", authLine(readToken(t, tokenFile))} { // without a newline
		clients.Go(func() {
			began := time.Now()
			c, err := net.Dial("unix", s.adminSocket)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			io.WriteString(c, sent)
			first := make([]byte, 1)
			if _, err := c.Read(first); err != nil {
				t.Error(err)
			}
			if waited := time.Since(began); waited < schema.AuthTimeout {
				t.Errorf("the broker sent a byte after %v", waited)
			}
			rest, err := io.ReadAll(c)
			if answer := string(first) + string(rest); err != nil || strings.Count(answer, "\n") != 1 || !strings.Contains(answer, `"unauthorized"`) {
				t.Errorf("the broker sent %q, error %v, want one refusal", answer, err)
			}
		})
	}
	clients.Wait()
	waitUntil(t, func() bool { return strings.Count(s.log.String(), `"auth.failed"`) == 3 })
}

// TestTokenAuthorizesConnection sends valid auth requests in different forms, also in one write
// with the next request, and byte by byte. The broker must accept each auth request and answer the
// next request. A wrong token must end even an authorized connection. A broker without a token
// must refuse an auth request.
func TestTokenAuthorizesConnection(t *testing.T) {
	s, tokenFile := newServerWithToken(t)
	token := readToken(t, tokenFile)
	escaped := fmt.Sprintf(`\u%04x%s`, token[0], token[1:])
	for name, pieces := range map[string][]string{
		"usual":       {authLine(token) + "\n", `{"op":"ping"}` + "\n"},
		"pipelined":   {authLine(token) + "\n" + `{"op":"ping"}` + "\n"},
		"long push":   {authLine(token) + "\n" + `{"op":"push-creds","secrets":{"A":"` + strings.Repeat("x", schema.MaxPush/2) + `"}}` + "\n"},
		"white space": {` { "op" : "auth" , "token" : "` + token + `" } ` + "\r\n" + `{"op":"ping"}` + "\n"},
		"more fields": {`{"token":"` + token + `","client":{"name":"x"},"op":"auth"}` + "\n" + `{"op":"ping"}` + "\n"},
		"escaped":     {authLine(escaped) + "\n" + `{"op":"ping"}` + "\n"},
		"bytes":       append(strings.Split(authLine(token)+"\n", ""), `{"op":"ping"}`+"\n"),
		"again":       {authLine(token) + "\n" + authLine(token) + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, s.adminSocket)
			for _, piece := range pieces {
				if _, err := io.WriteString(c, piece); err != nil {
					t.Fatal(err)
				}
			}
			if answer := c.readLine(t); answer != `{"ok":true}` {
				t.Errorf("the answer to auth is %s", answer)
			}
			if answer := c.readLine(t); !strings.HasPrefix(answer, `{"ok":true`) {
				t.Errorf("the answer to the next request is %s", answer)
			}
		})
	}
	c := connect(t, s.adminSocket)
	c.request(t, authLine(token))
	if answer := c.request(t, authLine("x")); !strings.Contains(answer, `"unauthorized"`) || c.readLine(t) != "" {
		t.Errorf("the answer to a wrong token on an authorized connection is %s, want unauthorized and the end", answer)
	}
	plain := newServer(t)
	if _, err := client.DialAdminWithToken(t.Context(), plain.adminSocket, tokenFile); client.CodeOf(err) != schema.CodeProtocolError {
		t.Errorf("a broker without a token answers auth with %v", err)
	}
}

// TestWrongTokensDoNotKeepClientsOut sends many wrong tokens at the same time, while another
// client authorizes new connections. The other client must succeed each time. The wrong tokens
// must change nothing, and must not fill the log. With KEYHATCH_TEST_ALL, the test sends 100000
// wrong tokens.
func TestWrongTokensDoNotKeepClientsOut(t *testing.T) {
	s, tokenFile := newServerWithToken(t)
	wrong := authLine(strings.Repeat("0", 64)) + "\n"
	const attackers = 40
	attempts := 100
	if testenv.All() {
		attempts = 100_000 / attackers
	}
	began := time.Now()
	done := make(chan struct{})
	var clients sync.WaitGroup
	for range attackers {
		clients.Go(func() {
			for range attempts {
				c, err := net.Dial("unix", s.adminSocket)
				if err != nil {
					t.Error(err)
					return
				}
				io.WriteString(c, wrong)
				answer, err := io.ReadAll(c)
				c.Close()
				if err != nil || bytes.Count(answer, []byte("\n")) != 1 || !bytes.Contains(answer, []byte(`"unauthorized"`)) {
					t.Errorf("a wrong token got %q, error %v", answer, err)
					return
				}
			}
		})
	}
	go func() { clients.Wait(); close(done) }()
	for isDone := false; !isDone; {
		select {
		case <-done:
			isDone = true
		default:
		}
		admin, err := client.DialAdminWithToken(t.Context(), s.adminSocket, tokenFile)
		if err != nil {
			t.Fatal("a client with the token: ", err)
		}
		status, err := admin.Status(t.Context())
		if err != nil || status.AdminConnections >= schema.MaxAdminConnections || status.Generation != 0 { // some earlier connections can still be open
			t.Fatalf("status returned %+v, error %v", status, err)
		}
		admin.Close()
	}
	seconds := int(time.Since(began)/time.Second) + 1
	if n := strings.Count(s.log.String(), `"auth.failed"`); n < schema.AuthFailedBurst || n > schema.AuthFailedBurst+seconds {
		t.Errorf("there are %d auth.failed events after %d seconds", n, seconds)
	}
	if n := strings.Count(s.log.String(), "\n"); n > schema.AuthFailedBurst+seconds+5 {
		t.Errorf("the log has %d lines", n)
	}
}

// TestOpenConnectionsDoNotKeepClientsOut opens many connections that send nothing, or that do
// not read their refusals. Another client must be able to authorize a connection nevertheless.
func TestOpenConnectionsDoNotKeepClientsOut(t *testing.T) {
	for name, sent := range map[string]string{
		"nothing":            "",
		"a part of a line":   "{",
		"a wrong token":      authLine("x") + "\n",
		"more after a token": authLine("x") + "\n" + strings.Repeat("x", schema.MaxAuth),
	} {
		t.Run(name, func(t *testing.T) {
			s, tokenFile := newServerWithToken(t)
			var open []*rawConn
			for range 2 * schema.MaxUnauthorized {
				c := connect(t, s.adminSocket)
				io.WriteString(c, sent)
				open = append(open, c)
			}
			for range 2 {
				admin := dialWithToken(t, s, tokenFile)
				status, err := admin.Status(t.Context())
				if err != nil || status.AdminConnections >= schema.MaxAdminConnections { // some earlier connections can still be open
					t.Errorf("status returned %d connections, error %v", status.AdminConnections, err)
				}
				admin.Close()
			}
			waitUntil(t, func() bool {
				isOpen := 0
				for _, c := range open {
					if !c.hasEnded(t) {
						isOpen++
					}
				}
				return isOpen <= schema.MaxUnauthorized
			})
		})
	}
}

// hasEnded reports whether the broker has ended the connection.
func (c *rawConn) hasEnded(t *testing.T) (ended bool) {
	t.Helper()
	raw, err := c.Conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		unix.Poll(fds, 0)
		ended = fds[0].Revents != 0
	})
	return ended
}

// TestAuthorizedConnectionsAreLimited authorizes as many connections as the limit of the admin
// socket allows. The broker must refuse one more connection, even with the token.
func TestAuthorizedConnectionsAreLimited(t *testing.T) {
	s, tokenFile := newServerWithToken(t)
	for range schema.MaxAdminConnections {
		dialWithToken(t, s, tokenFile)
	}
	if _, err := client.DialAdminWithToken(t.Context(), s.adminSocket, tokenFile); client.CodeOf(err) != schema.CodeRateLimited {
		t.Errorf("the error of one more connection is %v, want rate_limited", err)
	}
}

// TestClientUsesTokenOfRestartedBroker starts a client while no broker runs, once without a token
// file, and once with the token file of an earlier broker. After the next broker has started, the
// client must authorize a connection with the token of this broker.
func TestClientUsesTokenOfRestartedBroker(t *testing.T) {
	m := newServiceManager(t, 100)
	tokenFile := m.dir + "/token"
	start := func() *broker.Server {
		config := m.config()
		config.AdminTokenFile = tokenFile
		s, err := broker.New(config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	first := start()
	old, err := os.ReadFile(tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	first.Shutdown(t.Context())
	if _, err := os.Lstat(tokenFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the token file after a stop: %v", err)
	}
	t.Run("without a file", func(t *testing.T) {
		result := pingInBackground(m.adminSocket(), tokenFile)
		s := start()
		if err := <-result; err != nil {
			t.Error(err)
		}
		s.Shutdown(t.Context())
	})
	t.Run("with the old token", func(t *testing.T) {
		if err := os.WriteFile(tokenFile, old, 0o600); err != nil { // a broker that crashes does not remove its token file
			t.Fatal(err)
		}
		forwarded, err := net.Listen("unix", m.dir+"/forwarded")
		if err != nil {
			t.Fatal(err)
		}
		defer forwarded.Close()
		forwarded.(*net.UnixListener).SetDeadline(time.Now().Add(20 * time.Second)) // in case the client does not connect again
		result := pingInBackground(m.dir+"/forwarded", tokenFile)
		for sent, isFirst := "", true; ; isFirst = false {
			c, err := forwarded.Accept()
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(c)
			line, err := lines.ReadString('\n')
			if err != nil || line == sent {
				t.Fatalf("the client sent no new token, error %v", err)
			}
			sent = line
			if isFirst {
				defer start().Close() // start the next broker after the client has sent the old token
			}
			broker := connect(t, m.adminSocket())
			io.WriteString(broker, line)
			answer := broker.readLine(t)
			fmt.Fprintln(c, answer)
			if strings.Contains(answer, `"unauthorized"`) == isFirst {
				if isFirst {
					c.Close()
					continue
				}
				ping, _ := lines.ReadString('\n')
				fmt.Fprintln(c, broker.request(t, strings.TrimSpace(ping)))
				c.Close()
				break
			}
			t.Fatalf("the broker answered %s", answer)
		}
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}

// pingInBackground authorizes a connection, and then sends a ping, in another goroutine. The
// channel receives the error, or nil.
func pingInBackground(socket, tokenFile string) <-chan error {
	result := make(chan error, 1)
	go func() { // ends when the client has an answer
		admin, err := client.DialAdminWithToken(context.Background(), socket, tokenFile)
		if err == nil {
			_, err = admin.Ping(context.Background())
			admin.Close()
		}
		result <- err
	}()
	return result
}

// TestUnauthorizedConnectionEndsAtStop stops the broker while two clients have not sent the token
// yet. The broker must end both connections without an answer, so that the clients can connect to
// the next broker.
func TestUnauthorizedConnectionEndsAtStop(t *testing.T) {
	s, _ := newServerWithToken(t)
	silent := connect(t, s.adminSocket)
	partial := connect(t, s.adminSocket)
	io.WriteString(partial, "{")
	s.Shutdown(t.Context())
	for _, c := range []*rawConn{silent, partial} {
		if answer := c.readLine(t); answer != "" {
			t.Errorf("the broker sent %s", answer)
		}
	}
	if strings.Contains(s.log.String(), "auth.failed") {
		t.Error("the log contains auth.failed")
	}
}
