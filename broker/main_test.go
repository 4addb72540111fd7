package broker_test

import (
	"testing"

	"github.com/keyhatch/keyhatch/broker/rundir"
)

// TestMain runs the tests. A broker in a test starts the test binary as a child process.
func TestMain(m *testing.M) {
	if rundir.IsChild() {
		rundir.RunChild()
		return
	}
	m.Run()
}
