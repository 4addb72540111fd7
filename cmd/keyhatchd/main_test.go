package main

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// TestMain runs the tests. If KEYHATCH_TEST_AS contains the name of another program, TestMain
// runs this program instead, because the tests start their own binary as the daemon.
func TestMain(m *testing.M) {
	if rundir.IsChild() {
		rundir.RunChild()
		return
	}
	switch os.Getenv("KEYHATCH_TEST_AS") {
	case "":
		code := m.Run()
		if code == 0 && !checkCollectedOutput() {
			code = 1
		}
		os.Exit(code)
	case "keyhatchd":
		main()
	case "keyhatchd-without-memfd-secret":
		if err := testenv.ForbidMemfdSecret(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Setenv("KEYHATCH_TEST_AS", "keyhatchd")
		err := syscall.Exec("/proc/self/exe", os.Args, os.Environ())
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case "keyhatchd-with-preemption":
		go restorePreemption()
		main()
	case "ping":
		printPing(os.Args[1])
	case "naive":
		serveNaiveBroker(os.Args[1])
	}
}
