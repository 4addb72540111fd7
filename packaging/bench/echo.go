package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"os/exec"
	"path/filepath"
)

//go:embed c/echo.c
var echoSource []byte

// compileEcho compiles the echo server in C. If gcc is not installed, it returns only
// skipped, a message with this reason.
func (b *bench) compileEcho() (skipped string, err error) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return cEcho + " is skipped, because gcc is not installed", nil
	}
	program := filepath.Join(b.dir, "echo")
	cmd := exec.Command(gcc, "-O2", "-Wall", "-Werror", "-x", "c", "-o", program, "-")
	cmd.Stdin = bytes.NewReader(echoSource)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling the echo server in C: %w: %s", err, out)
	}
	b.cEcho = program
	return "", nil
}

func (b *bench) startCEcho(dir string, cpu int, model *keyhatch) (*contender, error) {
	c := &contender{name: cEcho, socket: filepath.Join(dir, "c.sock")}
	c.get, c.getMany = echoOf(model.get), echoOf(model.getMany)
	return c, c.start(cpu, hello, b.cEcho, c.socket)
}

// startGo starts the Go server with which keyhatchd is compared. The server is one
// process with two sockets.
func (b *bench) startGo(dir string, cpu int, model *keyhatch) (echo, sink *contender, err error) {
	echo = &contender{name: goEcho, socket: filepath.Join(dir, "echo.sock"), pushSocket: filepath.Join(dir, "sink.sock")}
	echo.get, echo.getMany = echoOf(model.get), echoOf(model.getMany)
	echo.encodePush, echo.pushReply = model.encodePush, sinkReply
	if err := echo.start(cpu, hello, b.self, "serve", echo.socket, echo.pushSocket); err != nil {
		return nil, nil, err
	}
	s := *echo
	s.name = goSink
	return echo, &s, nil
}

var hello = exchange{[]byte("hello\n"), []byte("hello\n")}

// echoOf returns one exchange with an echo server for each given exchange. Its request and its
// reply are the reply of the given exchange, so that all servers send replies of the same length.
func echoOf(exchanges []exchange) (echoes []exchange) {
	for _, x := range exchanges {
		echoes = append(echoes, exchange{x.reply, x.reply})
	}
	return echoes
}
