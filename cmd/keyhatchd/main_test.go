package main

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// TestMain runs the tests. The tests also start their own binary as another program, for example
// as the daemon. They then put the name of the program into KEYHATCH_TEST_AS, and TestMain runs
// this program instead of the tests.
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
