package endpoint

import "testing"

// TestDrainingChannel gets the channel of a drain before and after the drain has started. Both
// channels must be closed.
func TestDrainingChannel(t *testing.T) {
	before, after := new(drainState), new(drainState)
	channel := before.draining()
	select {
	case <-channel:
		t.Error("the channel is closed although the drain has not started")
	default:
	}
	before.start()
	after.start()
	for name, channel := range map[string]<-chan struct{}{"before": channel, "after": after.draining()} {
		select {
		case <-channel:
		default:
			t.Errorf("the channel from %s the start of the drain is not closed", name)
		}
	}
}
