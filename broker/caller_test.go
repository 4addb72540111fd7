package broker

import "testing"

func TestKnownCaller(t *testing.T) {
	for c, want := range map[caller]bool{
		{uid: 0, pid: 1}:            true,
		{uid: 1000, pid: 7}:         true,
		{uid: unknownUID, pid: 7}:   false,
		{uid: 1000, pid: 0}:         false,
		{uid: unknownUID, gid: 100}: false,
	} {
		if c.known() != want {
			t.Errorf("%+v: known is %v", c, !want)
		}
	}
}
