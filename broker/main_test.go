package broker_test

import (
	"testing"

	"github.com/keyhatch/keyhatch/broker/rundir"
)

// TestMain runs the tests. The broker starts its own executable as a child process. In a test, this
// executable is the test binary, and TestMain must then run the code of the child, and no tests.
func TestMain(m *testing.M) {
	if rundir.IsChild() {
		rundir.RunChild()
		return
	}
	m.Run()
}
