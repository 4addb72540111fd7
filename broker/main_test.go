package broker_test

import (
	"testing"

	"github.com/keyhatch/keyhatch/broker/rundir"
)

// TestMain runs the tests. A broker in a test starts the test binary as its child process, and
// TestMain then runs only this child process.
func TestMain(m *testing.M) {
	if rundir.IsChild() {
		rundir.RunChild()
		return
	}
	m.Run()
}
